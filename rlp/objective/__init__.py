"""What is optimised: equations on arrays, and objectives made of them."""
