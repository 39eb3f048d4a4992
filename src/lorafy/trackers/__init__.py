"""Seam: where metrics go. One file a tracker."""
