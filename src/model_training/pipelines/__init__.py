"""Folders of pipelines, and images: where a pipeline is looked up."""
