"""The nets as they are trained: architectures, anchors, and a cfg made to fit data and options."""
