"""Runs and schedules on a Kubeflow cluster, over the API of Kubeflow Pipelines."""
