"""Learning how experts retouch RAW photos: a diffusion model that outputs affine bilateral grids."""
