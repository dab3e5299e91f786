"""OpenVINO: a bundle's graphs as its models, in the precision that was asked for, read back and compared before they are kept."""
