"""What errors tell a person to do with a file that cannot be read as it is."""

CONVERT = "convert it with: ffmpeg -i INPUT -pix_fmt yuv420p OUTPUT.mp4"
RESTAMP = CONVERT.replace("-i", "-dts_delta_threshold 1 -i", 1)  # without the option a jump of the clock stays as a gap
