"""Measure what widths cost on this machine: whole models, kernel by kernel; kept for the next time."""

from onnxprune.profile.measure import Profiler, profile, removed_by
from onnxprune.profile.remembered import profiler_of, save
from onnxprune.profile.staircase import Profile, profile_of

__all__ = ["Profile", "Profiler", "profile", "profile_of", "profiler_of", "removed_by", "save"]
