import { STATIC_SUFFIX } from './static-policies.ts';

type Loaded = {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
  readonly metadata?: { readonly name?: unknown };
  readonly spec?: { readonly paramKind?: unknown; readonly paramRef?: unknown; readonly policyName?: unknown };
};

const [POLICY, BINDING] = ['ValidatingAdmissionPolicy', 'ValidatingAdmissionPolicyBinding'];

/**
 * Returns why an API server would not read these files, or would ignore something in them; empty if it reads all of it.
 * One that starts on a directory it cannot read exits, so this is asked before the files are there.
 */
export function staticProblems(files: ReadonlyMap<string, readonly unknown[]>): readonly string[] {
  const problems: string[] = [];
  const names = new Map<string, string>();
  const bound: string[] = [];
  for (const [file, objects] of files) {
    const say = (problem: string) => problems.push(`\`${file}\`: ${problem}`);
    if (!/\.(ya?ml|json)$/.test(file)) say('its name does not end in .yaml, .yml or .json');
    if (objects.length === 0) say('it is empty');
    for (const object of objects) {
      const { apiVersion, kind, metadata, spec } = (object ?? {}) as Loaded;
      const name = String(metadata?.name ?? '');
      if (apiVersion !== 'admissionregistration.k8s.io/v1' || (kind !== POLICY && kind !== BINDING)) {
        say(`it may only hold a ${POLICY} or ${BINDING} of admissionregistration.k8s.io/v1`);
        continue;
      }
      if (!name.endsWith(STATIC_SUFFIX)) say(`the name \`${name}\` does not end in ${STATIC_SUFFIX}`);
      const first = names.get(`${kind} ${name}`);
      if (first !== undefined) say(`the ${kind} \`${name}\` is also in \`${first}\``);
      else names.set(`${kind} ${name}`, file);
      if (spec?.paramKind !== undefined || spec?.paramRef !== undefined) say(`\`${name}\` has parameters`);
      if (kind === BINDING) bound.push(String(spec?.policyName ?? ''));
      if (kind === BINDING && !hasPolicy(files, spec?.policyName))
        say(`\`${name}\` names the policy \`${String(spec?.policyName)}\`, which is in none of the files`);
    }
  }
  for (const [key, file] of names)
    if (key.startsWith(`${POLICY} `) && !bound.includes(key.slice(POLICY.length + 1)))
      problems.push(`\`${file}\`: no binding names the policy \`${key.slice(POLICY.length + 1)}\``);
  return problems;
}

function hasPolicy(files: ReadonlyMap<string, readonly unknown[]>, name: unknown): boolean {
  return [...files.values()].flat().some((object) => {
    const { kind, metadata } = (object ?? {}) as Loaded;
    return kind === POLICY && metadata?.name === name;
  });
}
