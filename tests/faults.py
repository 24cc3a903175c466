"""Processes that are killed, and calls that fail, at each call to the operating system but for those that only look."""

import os
import sys

MODULES = {"posix", "fcntl", "_io"}
LOOKS = {"fspath", "text_encoding", "stat", "lstat", "is_dir", "getcwd", "urandom", "_path_normpath", "readable"}


def _calls_system(function):
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or type(owner).__module__
    return module in MODULES and function.__name__ not in LOOKS


def before_call(number, act):
    """From now on `act` is called before the call of that number, from 1, to a function that asks the system."""
    left = number

    def count(frame, event, called):
        nonlocal left
        if event == "c_call" and _calls_system(called):
            left -= 1
            if not left:
                sys.setprofile(None)
                act()

    sys.setprofile(count)


def killed_before(number, work):
    """Do `work` in a process that is killed before its call of that number; False if it comes to its end."""
    child = os.fork()
    if not child:
        before_call(number, lambda: os._exit(9))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), "the work itself failed"
    return status == 9


def fails_before(number, work, error):
    """Do `work` while its call of that number fails with `error`: did it come to that, and what did it raise?"""
    failed = False

    def fail():
        nonlocal failed
        failed = True
        raise error

    before_call(number, fail)
    try:
        work()
    except Exception as raised:
        return failed, raised
    finally:
        sys.setprofile(None)
    return failed, None
