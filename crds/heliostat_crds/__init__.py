"""The custom resources, as pydantic models: the single source of what a manifest may say."""
