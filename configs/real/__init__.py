"""The experiment on a real pretrained model (docs/real_model.md)."""
