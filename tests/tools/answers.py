# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the reference answered about the images of the corpus, kept beside them.

Many tests, and each build that is tested, ask the reference the same of the same
images; it is asked once. Invariants:

 1. An answer is used only for the very program, environment and images that it is
    of: its name is the digest of all that. Another QEMU or a changed image finds none.
 2. Answers lie in the folder of the corpus, and go when that is made anew.
 3. An answer appears whole or not at all, however many tests run at a time.
 4. Nothing writes to the corpus while answers are taken; a test that finds it changed fails.
"""
import hashlib
import json
import os
import tempfile

FOLDER = 'answers'
# How dates and messages look.
ENVIRONMENT = ('TZ', 'LANG', 'LC_ALL', 'LC_MESSAGES', 'LC_TIME', 'LANGUAGE')


def digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def only_reads(args):
    """Whether a command line leaves images of the corpus as they are, and says the same again.

    `map` and `measure` do not: what a file system has allocated and not written is a hole
    until it has been read, and data for as long as that is in memory."""
    changes = {'info': (), 'check': ('-r', '--r'),
               'snapshot': ('-c', '-a', '-d', '--')}
    return bool(args) and args[0] in changes and \
        not any(arg.startswith(changes[args[0]]) or '/' in (arg[:1], arg[arg.find('=') + 1:][:1])
                for arg in args[1:])


def settle(folder):
    """Have the images reach the disk: until then the space that they take may change."""
    marker = os.path.join(folder, 'settled')
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(marker):
        os.sync()
        with open(marker, 'w', encoding='ascii'):
            pass


def files_of(folder):
    """What identifies each file of the corpus, but for its content."""
    found = []
    for path, folders, names in os.walk(folder):
        if FOLDER in folders:
            folders.remove(FOLDER)
        folders.sort()
        for name in sorted(set(names) - {'.lock'}):
            stat = os.lstat(os.path.join(path, name))
            found.append((path, name, stat.st_ino, stat.st_size, stat.st_blocks, stat.st_mode,
                          stat.st_mtime_ns))
    return found


class Answers:

    def __init__(self, corpus, program):
        self.corpus = corpus
        self.folder = os.path.join(corpus, FOLDER)
        settle(self.folder)
        real = os.path.realpath(program)
        stat = os.stat(real)
        with open(os.path.join(corpus, 'corpus.json'), encoding='utf-8') as file:
            manifest = file.read()  # it names the version of QEMU
        self.program = (program, real, stat.st_size, stat.st_mtime_ns, manifest,
                        [os.environ.get(name) for name in ENVIRONMENT])
        self.state = self.state_now()

    def state_now(self):
        return digest((self.program, files_of(self.corpus)))

    def are_of_now(self):
        return self.state_now() == self.state

    def remembered(self, question, ask):
        """The answer to a list of strings, as JSON keeps it; ask() gets it the first time."""
        path = os.path.join(self.folder, digest((self.state, question)))
        try:
            with open(path, encoding='utf-8') as file:
                return json.load(file)
        except (FileNotFoundError, ValueError):  # not there, or cut off by a crash
            pass
        answer = ask()
        with tempfile.NamedTemporaryFile('w', dir=self.folder, delete=False,
                                         encoding='utf-8') as file:
            json.dump(answer, file)
        os.replace(file.name, path)
        return answer
