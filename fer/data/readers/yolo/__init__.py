"""YOLO data sets as people have them: their layouts, their label files, and the faces in them."""
