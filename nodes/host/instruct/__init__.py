"""InstructPix2Pix: a picture and an instruction, under two guidance scales."""
