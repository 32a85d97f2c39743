# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turn a Meson test log into lines "pass|fail|skip PHASE/TEST [reason]".

count.py PHASE LOG.json...

A test that skips parts of itself (cmocka's skip(), unittest's) ends with exit
code 0; such parts are counted as skipped too, or they would go unseen.
"""
import json
import re
import sys

PART_SKIPPED = re.compile(r'^\[  SKIPPED \] (?!\d+ test)(?P<cmocka>\S+)'
                          r'|^(?P<unittest>\S+) .*\.\.\. skipped ', re.M)
PASSED = {'OK', 'EXPECTEDFAIL'}


def parts_skipped(output):
    names = [m['cmocka'] or m['unittest'] for m in PART_SKIPPED.finditer(output)]
    return list(dict.fromkeys(n.rstrip(',') for n in names))


def outcomes(phase, record):
    name = record['name'].split(' / ')[-1].split(':')[-1].strip()
    where = f'{phase}/{name}'
    output = (record.get('stdout') or '') + '\n' + (record.get('stderr') or '')
    if record['result'] in PASSED:
        yield f'pass {where}'
        for part in parts_skipped(output):
            yield f'skip {where}:{part}'
    elif record['result'] == 'SKIP':
        yield f'skip {where}'
    else:
        yield f'fail {where} {record["result"].lower()}, exit code {record["returncode"]}'


def main():
    phase, *logs = sys.argv[1:]
    count = 0
    for log in logs:
        with open(log, encoding='utf-8') as f:
            for line in f:
                for outcome in outcomes(phase, json.loads(line)):
                    count += 1
                    print(outcome)
    if count == 0:
        print(f'fail {phase}/tests no test ran')


if __name__ == '__main__':
    main()
