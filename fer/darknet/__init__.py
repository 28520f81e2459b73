"""Darknet's nets, trained, scored and run by the darknet program or in torch."""
