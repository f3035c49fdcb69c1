"""Disk: the files of an atlas, written whole and read on demand."""
