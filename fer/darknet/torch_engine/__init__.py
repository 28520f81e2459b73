"""The same nets in torch: layers, weights, pictures, scores, prediction and export."""
