"""A region of the picture: its masks, painted, found or carried, and the crops that are edited."""

from adaflow_core.picture.region.mask import BEFORE_CROPS, FEATHER, Region, RegionMask, crop_line

__all__ = ["BEFORE_CROPS", "FEATHER", "Region", "RegionMask", "crop_line"]
