"""Floor 5: the classroom. Exercises with points and hints, for students alone and for nbgrader."""

from tandem_edu.classroom.check import Case as Case
from tandem_edu.classroom.check import Exercise as Exercise
from tandem_edu.classroom.check import Report as Report
from tandem_edu.classroom.exercises import EXERCISES as EXERCISES
from tandem_edu.classroom.exercises import check as check
from tandem_edu.classroom.exercises import standing as standing
