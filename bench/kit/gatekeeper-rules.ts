import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The same rules as ConstraintTemplates with a constraint each: every `deny_NAME` becomes the `violation` of a template
 * of its own, what it shares with others is copied into it, and the object is `input.review.object`. Gives how many.
 */
export function writeTemplates(rego: string, directory: string): number {
  mkdirSync(directory, { recursive: true });
  const blocks = rego.split(/\n(?=deny_)/);
  const shared = (blocks.shift() ?? '').replace(/^package main\n+import rego.v1\n/, '');
  for (const block of blocks) {
    const name = /^deny_(\w+)/.exec(block)?.[1] ?? '';
    const kind = `Bench${name.replaceAll('_', '')}`;
    const body = `${shared}\n${block}`
      .replaceAll(/\binput\./g, 'input.review.object.')
      .replace(/deny_\w+ contains msg if/, 'violation contains {"msg": msg} if');
    const indented = `package ${kind.toLowerCase()}\n${body}`.replaceAll(/^(?=.)/gm, '              ');
    writeFileSync(
      join(directory, `${name}.yaml`),
      `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata:
  name: ${kind.toLowerCase()}
spec:
  crd:
    spec:
      names:
        kind: ${kind}
  targets:
    - target: admission.k8s.gatekeeper.sh
      code:
        - engine: Rego
          source:
            version: v1
            rego: |
${indented}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: ${kind}
metadata:
  name: ${name.replaceAll('_', '-')}
`,
    );
  }
  return blocks.length;
}
