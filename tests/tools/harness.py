# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs a tool of ours and its QEMU counterpart side by side.

From the environment:
  BLOCKGRAPH_TEST_TOOLS     the folder of our programs (build/tools)
  BLOCKGRAPH_TEST_CORPUS    where the image corpus is, or is to be made; else beside
                            the folder of our programs
  BLOCKGRAPH_TEST_QEMU_IMG  the reference; else the qemu-img in PATH
  TMPDIR                    for what the tests write; else /dev/shm, where a flush costs
                            nothing, if there is room and O_DIRECT

Ours runs under the reference's name, through a link, so that messages compare
byte for byte. What QEMU prints has changed over the years: text is compared
with a reference of 10.0 or later, older ones are asked for content and exit
codes only. Without a reference, tests that need one are skipped.
"""
import concurrent.futures
import contextlib
import fnmatch
import functools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest
import zlib

import answers

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = os.path.join(HERE, '..', 'images')
DIFFERENCES = os.path.join(HERE, '..', '..', 'docs', 'compatibility.md')
TIMEOUT = 120
ENGINES = ('io_uring', 'threads')
# In memory there must be room for what three tests write at a time.
ROOM = 2 << 30


class Result:
    """What a program did."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err

    def __repr__(self):
        return 'status %d\n--- stdout\n%s--- stderr\n%s' % (self.status, self.out, self.err)


# For all programs that are run; one at a time would mean to fork all of Python for each.
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


def run(program, args, cwd=None, env=None, **more):
    """Run a program; output is text in which any byte survives."""
    done = subprocess.run([program, *map(str, args)], cwd=cwd, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT,
                          env={**os.environ, **(env or {})}, check=False, **more)
    return Result(done.returncode, done.stdout.decode('utf-8', 'surrogateescape'),
                  done.stderr.decode('utf-8', 'surrogateescape'))


def ours(name='blockgraph-img'):
    return os.path.join(os.environ['BLOCKGRAPH_TEST_TOOLS'], name)


@functools.cache
def is_sanitized():
    with open(ours(), 'rb') as file:
        return re.search(rb'__[at]san_init', file.read()) is not None


def each_or_one(cases, *subject):
    """All cases; for a sanitizer, to which all mean the same code, one, by what they are with."""
    if not is_sanitized():
        return cases
    return [cases[zlib.crc32(repr(subject).encode()) % len(cases)]]


def reference():
    return os.environ.get('BLOCKGRAPH_TEST_QEMU_IMG') or shutil.which('qemu-img')


def reference_io():
    return os.environ.get('BLOCKGRAPH_TEST_QEMU_IO') or shutil.which('qemu-io')


@functools.cache
def reference_version():
    """(10, 0) for 10.0.2; (0, 0) without a reference."""
    if reference() is None:
        return (0, 0)
    text = run(reference(), ['--version']).out
    return tuple(int(part) for part in re.search(r'version (\d+)\.(\d+)', text).groups())


class Corpus:
    """The images of tests/images, made when they are first asked for."""

    folder = None
    images = None
    answers = None

    @classmethod
    def load(cls):
        if cls.images is None:
            cls.folder = os.path.abspath(os.environ.get('BLOCKGRAPH_TEST_CORPUS') or
                                         ours('../corpus'))
            os.makedirs(os.path.dirname(cls.folder), exist_ok=True)
            # All of it, also for a quick run: other tests may read it meanwhile.
            subprocess.run([sys.executable, os.path.join(IMAGES, 'make-corpus.py'), cls.folder],
                           check=True, stdout=subprocess.DEVNULL)
            with open(os.path.join(cls.folder, 'corpus.json'), encoding='utf-8') as file:
                cls.images = json.load(file)['images']
            if quick_run():
                # One damaged field after the other is for the full run.
                cls.images = [image for image in cls.images
                              if 'quick' in image['tags'] and 'field' not in image['tags']]
            if reference():
                cls.answers = answers.Answers(cls.folder, reference())
        return cls.images


def quick_run():
    return '--quick' in sys.argv


@functools.cache
def differences():
    """The rows of docs/compatibility.md: (image name patterns, {command: (ours, QEMU's)})."""
    rows = []
    with open(DIFFERENCES, encoding='utf-8') as file:
        for line in file:
            cells = [cell.strip() for cell in line.split('|')]
            if len(cells) == 5 and cells[1].startswith('`'):
                codes = re.findall(r'([a-z][^,]*) (\d+)/(\d+)', cells[2])
                assert len(codes) == cells[2].count('/'), line
                rows.append((re.findall('`([^`]+)`', cells[1]),
                             {name: (int(mine), int(theirs)) for name, mine, theirs in codes}))
    assert rows
    return rows


def difference(image, command):
    """The exit codes (ours, QEMU's) of a command that is to differ on an image, or None."""
    for patterns, codes in differences():
        if command in codes and any(fnmatch.fnmatchcase(image['name'], pattern)
                                    for pattern in patterns):
            return codes[command]
    return None


@functools.cache
def scratch_parent():
    """Where scratch folders go: in memory if it can stand in for a disk. None: the default."""
    memory = '/dev/shm'
    if os.environ.get('TMPDIR') or not os.access(memory, os.W_OK):
        return None
    space = os.statvfs(memory)
    if space.f_bavail * space.f_frsize < ROOM:
        return None
    try:
        with tempfile.NamedTemporaryFile(dir=memory) as file:
            os.close(os.open(file.name, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return None
    return memory


def on_disk(test):
    """Marks a test that needs a real file system, or more room than memory has."""
    test.on_disk = True
    return test


def source(image):
    """The arguments that name an image of the corpus."""
    if image['opts']:
        return ['--image-opts', image['opts']]
    return ['-f', image['format'], image['file']]


class ToolTest(unittest.TestCase):
    """A scratch folder for each test, and both programs."""

    maxDiff = 4000

    def setUp(self):
        test = getattr(self, self._testMethodName)
        self.scratch = tempfile.mkdtemp(
            prefix='blockgraph-test-',
            dir=None if getattr(test, 'on_disk', False) else scratch_parent())
        self.addCleanup(shutil.rmtree, self.scratch)
        link = os.path.join(self.scratch, '.bin', 'qemu-img')
        os.makedirs(os.path.dirname(link))
        os.symlink(ours(), link)
        self.as_qemu = link
        self.compares_text = reference_version() >= (10, 0)

    def need_reference(self):
        if reference() is None:
            self.skipTest('no qemu-img')

    def need_reference_text(self):
        self.need_reference()
        if not self.compares_text:
            self.skipTest('qemu-img is older than 10.0')

    def path(self, name):
        return os.path.join(self.scratch, name)

    def write(self, name, data=b'', size=None):
        """A file in the scratch folder, extended to `size` by a hole; its path."""
        with open(self.path(name), 'wb') as file:
            file.write(data)
            if size is not None:
                file.truncate(size)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()

    def img(self, *args, cwd=None, **more):
        """Run ours."""
        return run(self.as_qemu, args, cwd or self.scratch, **more)

    def img_without_privilege(self, *args, cwd=None):
        """Run ours where permissions hold, even if the test runs as root."""
        if os.geteuid() != 0:
            return self.img(*args, cwd=cwd)
        dropped = '-dac_override,-dac_read_search'
        return run('setpriv', ['--bounding-set', dropped, '--inh-caps', dropped, self.as_qemu,
                               *args], cwd or self.scratch)

    def qemu(self, *args, cwd=None, files=None):
        """Run the reference, maybe with a limit on open files; what it says of the corpus is
        remembered, where it says that again (see answers.py)."""
        args = [str(arg) for arg in args]
        if files is not None:
            return run('prlimit', ['--nofile=%d' % files, reference(), *args], cwd)
        if Corpus.answers is None or cwd != Corpus.folder or not answers.only_reads(args):
            return run(reference(), args, cwd or self.scratch)

        def ask():
            result = run(reference(), args, cwd)
            return [result.status, result.out, result.err]
        return Result(*Corpus.answers.remembered(args, ask))

    def make(self, *args, cwd=None):
        """Have the reference make something."""
        self.need_reference()
        result = self.qemu(*args, cwd=cwd)
        self.assertEqual(result.status, 0, '%s: %r' % (args, result))

    @contextlib.contextmanager
    def held(self, name, image_format='qcow2', cwd=None):
        """The image is open for writing in another process."""
        with subprocess.Popen([reference_io(), '-f', image_format, name],
                              cwd=cwd or self.scratch, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as holder:
            # What it prints to the first command says that it has opened.
            holder.stdin.write(b'length\n')
            holder.stdin.flush()
            while b'B' not in holder.stdout.readline():
                self.assertIsNone(holder.poll(), name)
            yield
            holder.stdin.close()
            holder.stdout.read()
            holder.wait(TIMEOUT)

    def plain(self, text):
        """Text without the programs' own paths."""
        for program in (self.as_qemu, reference() or '/nowhere'):
            text = text.replace(program, 'qemu-img')
        # The tools of a folder of one's own may run through a wrapper.
        return re.sub(r"(?<=Try ')\S*qemu-img|^\S*/qemu-img(?=( \w+)?: )", 'qemu-img', text,
                      flags=re.MULTILINE)

    def check_same(self, *args, cwd=None, errors=True, mask=None):
        """Both print the same and end with the same exit code; returns ours."""
        mine = self.img(*args, cwd=cwd)
        theirs = self.qemu(*args, cwd=cwd)
        names = ' '.join(map(str, args))
        self.assertEqual(mine.status, theirs.status, '%s: %r\nreference: %r' % (names, mine,
                                                                               theirs))
        if self.compares_text:
            mask = mask or (lambda text: text)
            self.assertEqual(mask(self.plain(mine.out)), mask(self.plain(theirs.out)), names)
            if errors:
                self.assertEqual(mask(self.plain(mine.err)), mask(self.plain(theirs.err)), names)
        return mine

    def for_images(self, check, wanted=lambda image: True):
        """Call check(image) for the wanted images of the corpus, on all cores."""
        self.need_reference()
        images = [image for image in Corpus.load() if wanted(image)]
        self.assertTrue(images, 'no such images in the corpus')
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(lambda image: self.outcome(check, image), images))
        failures = [text for text in outcomes if text]
        if not Corpus.answers.are_of_now():
            failures.append('* the images themselves were changed')
        if failures:
            self.fail('%d of %d images:\n%s' % (len(failures), len(images),
                                                '\n'.join(failures)))

    @staticmethod
    def outcome(check, image):
        try:
            check(image)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return '* %s (%s): %s' % (image['name'], image['how'][:200], str(error)[:3000])
        return None


def crashed(result):
    """Whether a program died of a signal or of a sanitizer."""
    return result.status < 0 or result.status >= 124 or 'Sanitizer' in result.err or \
        'runtime error' in result.err


def main():
    """Run the calling module's tests; a file whose tests were all skipped says so by 77."""
    program = unittest.main(argv=[arg for arg in sys.argv if arg != '--quick'], exit=False,
                            verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun and len(result.skipped) == result.testsRun else 0)
