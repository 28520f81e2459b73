"""The files of Darknet's world, read and written: cfgs, weights, exported folders of photos, run folders."""
