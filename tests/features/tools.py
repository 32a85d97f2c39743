#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make docs/tools.md from tools.txt: each option of QEMU's tools, and a run that shows ours.

  tools.py            fail if the page is not what would be made, if QEMU's help names an
                      option that tools.txt lacks, or if our help lacks one without a reason
  tools.py --write    write the page, and what QEMU 10.0's help names

From the environment:
  BLOCKGRAPH_TEST_TOOLS     the folder of our programs
  BLOCKGRAPH_TEST_QEMU_IMG  QEMU 10.0's tools, to read their help; without them
  BLOCKGRAPH_TEST_QEMU_IO   qemu-options.txt is taken for what they say
"""
import os
import re
import subprocess
import sys
import tempfile

import tools_table
from tools_table import Wrong

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, '..', '..', 'docs', 'tools.md')
EXTRACT = os.path.join(HERE, 'qemu-options.txt')
EXTRACT_HEAD = '''\
# The names of options and commands in the help of qemu-img and qemu-io 10.0.2, as Debian
# builds them: what tests/features/tools.py --write has read from `COMMAND --help`,
# `create -f FORMAT -o help`, `amend -f FORMAT -o help` and `qemu-io -c "help COMMAND"`.
'''
CREATED = ('raw', 'file', 'host_device', 'qcow2')
AMENDED = ('qcow2',)
INTRODUCTION = '''# The options of qemu-img and qemu-io 10.0, and ours

Every option and command that the help of QEMU 10.0's tools names, and a run of
`blockgraph-img` or `blockgraph-io` whose result changes with it. What is in `[ ]` is there
in one of two runs and left out in the other, or replaced by what stands behind `//`. The
tests `test-img-options` and `test-io-options` run both, with each spelling of the option:
exit code, output and the bytes of all files may not be the same. Where QEMU 10.0 is at
hand its tools run too, and must come to the same. *By its trace* means that the option
changes only how the work is done, and that the events of `--trace` tell; *locked* that
another process has the image open for writing.

The options of `convert -O FORMAT -o` and `measure -O FORMAT -o` are those of `create -f
FORMAT -o`. What else the tools take is in their manual pages, and where they differ from
QEMU's in [compatibility.md](compatibility.md).

This page is made by `tests/features/tools.py --write` out of `tests/features/tools.txt`;
a test fails when it is not, when QEMU's help names an option that it lacks, or when ours
lacks one and no reason is given.
'''


def output(*words):
    """What a program prints, wherever it prints it."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, 'a'), 'wb') as file:
            file.truncate(4096)
        return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False, cwd=folder,
                              ).stdout.decode('utf-8', 'replace')


def options_of_help(text):
    """The options that begin a line of a help text, or stand in its usage; dd's words, too."""
    found = set()
    for line in text.splitlines():
        if re.match(r'\s+-', line):
            line = re.match(r'\s+(\S+(?:(?:,\s*| )-\S+)*)', line).group(1)
            found.update(re.findall(r'(?<![\w-])--?[A-Za-z][\w-]*', line))
    usage = text.split('Arguments:')[0]
    found.update(re.findall(r'[\[(| ](--?[A-Za-z][\w-]*)(?=[ |\]])', usage))
    if 'if=' in usage:
        found.update(re.findall(r'[\[ ](\w+=)', usage))
    return found


def options_of_format(text):
    """The names in the list that -o help prints."""
    return set(re.findall(r'^  ([\w.-]+)=<', text, re.MULTILINE))


def sections_of_img(program):
    text = output(program, '--help')
    sections = {'img': options_of_help(text)}
    for command in re.findall(r'^  (\w+) - ', text, re.MULTILINE):
        sections['img ' + command] = options_of_help(output(program, command, '--help'))
    for command, formats, option in (('create', CREATED, '-f'), ('amend', AMENDED, '-f'),
                                     ('convert', CREATED, '-O')):
        for name in formats:
            sections['img %s %s' % (command, name)] = options_of_format(
                output(program, command, option, name, '-o', 'help'))
    for name in CREATED:
        if sections.pop('img convert ' + name) != sections['img create ' + name]:
            raise Wrong('%s: convert -O %s -o help is not that of create' % (program, name))
    return sections


def sections_of_io(program):
    sections = {'io': options_of_help(output(program, '--help'))}
    commands = output(program, '-f', 'raw', '-c', 'help', 'a')
    commands = re.findall(r'^(\w+) .*-- ', commands, re.MULTILINE)
    sections['io commands'] = set(commands)
    for command in commands:
        text = output(program, '-f', 'raw', '-c', 'help ' + command, 'a')
        flags = set(re.findall(r'^ (-\w), -- ', text, re.MULTILINE))
        flags.update(re.findall(r'[\[(| ](-[A-Za-z])(?=[ |\])])', text.splitlines()[0]))
        if flags:
            sections['io ' + command] = flags
    return sections


def describe(sections):
    return EXTRACT_HEAD + ''.join('%s: %s\n' % (name, ' '.join(sorted(options)))
                                  for name, options in sections.items())


def parse_extract(text):
    lines = [line.split(': ') for line in text.splitlines() if not line.startswith('#')]
    return {name: set(options.split()) for name, options in lines}


def theirs():
    """{section: options} of QEMU 10.0, or None where it is not at hand."""
    programs = [os.environ.get('BLOCKGRAPH_TEST_QEMU_' + name) for name in ('IMG', 'IO')]
    if None in programs or not re.search(r'version 10\.0\.', output(programs[0], '--version')):
        return None
    return {**sections_of_img(programs[0]), **sections_of_io(programs[1])}


def ours():
    folder = os.environ['BLOCKGRAPH_TEST_TOOLS']
    return {**sections_of_img(os.path.join(folder, 'blockgraph-img')),
            **sections_of_io(os.path.join(folder, 'blockgraph-io'))}


def check(table, wanted, have):
    """tools.txt names all that is wanted, and nothing is said to be missing that we have."""
    for section, names in wanted.items():
        options = table.get(section, [])
        told = {spelling: option for option in options for spelling in option.spellings}
        for name in sorted(names):
            if name not in told:
                raise Wrong('%s: nothing is said of %s' % (section, name))
            # A name that is cut short is taken for the whole one.
            there = any(mine == name or name.startswith('--') and mine.startswith(name)
                        for mine in have.get(section, ()))
            if there == (told[name].state == 'missing'):
                raise Wrong('%s: %s is %s' % (section, name,
                                              'not missing' if there else 'missing'))
    for section, options in table.items():
        for option in options:
            if not wanted.get(section, set()) & set(option.spellings) and \
                    option.name not in ('img dd skip=',):
                raise Wrong('%s: QEMU has no such option' % option.name)


def shown(option):
    """What the page says of an option."""
    run = option.says.get('run')
    program = 'blockgraph-' + option.section.split()[0]
    cell = '`%s %s`' % (program, run.replace('|', '\\|')) if run else ''
    notes = [text for key, text in (('trace', '*by its trace*'), ('locked', '*locked*'))
             if key in option.says]
    state = 'yes'
    if option.state == 'accepted':
        state = 'taken'
        notes.append('no effect to see: ' + option.says['accepted'])
    elif option.state != 'run':
        state = 'no'
        notes.append('%s: %s' % (option.state, option.says[option.state]))
    return '| %s | %s | %s |' % (', '.join('`%s`' % name for name in option.spellings), state,
                                 ', '.join([cell] * bool(cell) + notes))


def render(sections):
    out = [INTRODUCTION]
    for section, options in sections:
        words = section.split()
        title = 'blockgraph-' + ' '.join(words[:2])
        if words[2:]:
            title += ' -f %s -o' % words[2]
        out.append('## %s\n\n| option | ours | a run that shows it |\n|---|---|---|' % title)
        out.extend(shown(option) for option in options)
        out.append('')
    return '\n'.join(out)


def self_test():
    """What the checks are for is found."""
    good = '== img x\n-a --all\n  run: x [-a]\n-b\n  missing: no\n'
    table = dict(tools_table.parse(good))
    check(table, {'img x': {'-a', '--all', '-b'}}, {'img x': {'-a', '--all'}})
    for wanted, have in ((['-a', '-b', '-c'], ['-a', '-c']), (['-a', '-b'], []),
                         (['-a', '-b'], ['-a', '-b']), (['-a'], ['-a'])):
        try:
            check(table, {'img x': set(wanted)}, {'img x': set(have)})
        except Wrong:
            continue
        raise Wrong('accepted: %r, %r' % (wanted, have))
    for wrong in (good.replace('[-a]', '-a'), good.replace('  missing: no\n', ''),
                  good.replace('run:', 'rnu:'), good + '  run: x [-b]\n'):
        try:
            tools_table.parse(wrong)
        except Wrong:
            continue
        raise Wrong('a wrong source was accepted: %r' % wrong)


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def write(path, text):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def main():
    try:
        self_test()
        sections = tools_table.load()
        reference = theirs()
        if sys.argv[1:] == ['--write'] and reference:
            write(EXTRACT, describe(reference))
        if reference and describe(reference) != read(EXTRACT):
            raise Wrong('qemu-options.txt is not what QEMU 10.0 says: run with --write')
        check(dict(sections), parse_extract(read(EXTRACT)), ours())
        page = render(sections)
    except Wrong as error:
        sys.exit('tools.py: %s' % error)
    if sys.argv[1:] == ['--write']:
        write(PAGE, page)
    elif not os.path.exists(PAGE) or read(PAGE) != page:
        sys.exit('tools.py: docs/tools.md is out of date: run it with --write')


if __name__ == '__main__':
    main()
