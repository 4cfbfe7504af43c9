"""Exercises with points and hints, for students alone and for nbgrader."""

from tandem_edu.classroom.check import Case, Exercise, Report
from tandem_edu.classroom.exercises import EXERCISES, check, scores
