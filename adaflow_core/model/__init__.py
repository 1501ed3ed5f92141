"""The diffusion model: loading, passes of the UNet, memory and kernels."""
