"""Training a scene classifier for unitscope: photos in, a safetensors file with its
own card out."""
