"""Datasets that tensorflow-datasets has prepared."""
