"""The page: a Gradio app over `tl_core.api`. gradio is imported here and nowhere else."""
