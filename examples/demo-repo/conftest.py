# Its presence puts this directory on the path of the tests.
