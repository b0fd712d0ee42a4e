import { VIOLATIONS, type ViolationCode } from '../src/model/index.ts';
import { exceptionOf } from '../src/report/index.ts';

const HEAD = `<!-- Made by \`npm run docs\` from src/model/violation-code.ts. -->

# Violations

A verdict says "denied" with one violation for each reason. In JSON output, on the ledger and in notifications a
violation looks like this:

    {"code": "unknown-key", "message": "commit 4f1c… \`add probe\`: …", "commit": "4f1c…", "hint": "…"}

\`code\` is stable: codes are added, never renamed or removed. \`message\` and \`hint\` are for people and may change.
Warnings have the same form. The last column names the row that a refusal gives in a report's register of exceptions;
a refusal without one is the control at work.

| code | meaning | exception |
| --- | --- | --- |
`;

/** Returns the text of docs/violations.md: every code with its meaning and its row in the register of exceptions. */
export function violationPage(): string {
  const rows = (Object.keys(VIOLATIONS) as ViolationCode[]).map((code) => {
    const exception = exceptionOf(code);
    return `| \`${code}\` | ${VIOLATIONS[code]} | ${exception === null ? '' : `\`${exception}\``} |\n`;
  });
  return HEAD + rows.join('');
}
