"""The Nova compute driver. Nova is imported below here and nowhere else in the package."""
