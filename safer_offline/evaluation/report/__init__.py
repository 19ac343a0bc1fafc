"""One page about runs, as a file that needs nothing but a browser.

documents    what lies in the folders of runs, whole or damaged
sentences    what it says: the verdict, what was tried and what was not
reproduction the commands that make the numbers again
page         the page as a whole
evaluations  the section of one evaluation
foreseen     what models of the data foresaw, beside what came
trainings    how and on what a policy was trained
comparing    several runs beside each other
tables, figures, prose   what sections are made of
markup       HTML in which every text from a file is escaped
style        how it looks, and the script that sorts its tables
"""

from safer_offline.evaluation.report.page import write_report

__all__ = ["write_report"]
