import { digestOf, type KubernetesObject, type RenderedObject, type ValuePath, type Violation } from '../model/index.ts';
import type { Rendering } from './render.ts';

const REFERENCE = /\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}/g;

/**
 * Puts declared texts in the place of `${NAME}` in the values of objects. A name that is not declared is a violation
 * (kustomize-controller 1671). Keys, and the schemas of CustomResourceDefinitions (1694), are left as they are.
 */
export function substitute(rendering: Rendering, declared: Readonly<Record<string, string>>): Rendering {
  const violations: Violation[] = [];
  const objects = rendering.objects.map((rendered): RenderedObject => {
    if (rendered.ref.kind === 'CustomResourceDefinition') return rendered;
    const missing: { name: string; path: ValuePath }[] = [];
    const object = replaced(rendered.object, declared, [], missing) as KubernetesObject;
    for (const { name, path } of missing)
      violations.push({
        code: 'variable-undeclared',
        message: `\`\${${name}}\` is not declared in \`spec.render.substitute\``,
        object: rendered.ref,
        source: { file: rendered.source.file, ...rendered.positionOf(path) },
        hint: `declare it, or write \`$\${${name}}\` for the text itself`,
      });
    if (object === rendered.object) return rendered;
    const { name, namespace = '' } = object.metadata;
    return { ...rendered, object, ref: { ...rendered.ref, name, namespace }, digest: digestOf(object) };
  });
  return { ...rendering, objects, violations: [...rendering.violations, ...violations] };
}

function replaced(
  value: unknown,
  declared: Readonly<Record<string, string>>,
  path: ValuePath,
  missing: { name: string; path: ValuePath }[],
): unknown {
  if (typeof value === 'string')
    return value.replaceAll(REFERENCE, (whole, escaped: string, name: string) => {
      if (escaped !== '') return whole.slice(1);
      if (Object.hasOwn(declared, name)) return declared[name] as string;
      missing.push({ name, path });
      return whole;
    });
  if (Array.isArray(value)) {
    const made = value.map((item, i) => replaced(item, declared, [...path, i], missing));
    return made.some((item, i) => item !== value[i]) ? made : value;
  }
  if (typeof value !== 'object' || value === null) return value;
  let different = false;
  const made = Object.entries(value).map(([key, old]) => {
    const now = replaced(old, declared, [...path, key], missing);
    different ||= now !== old;
    return [key, now] as const;
  });
  return different ? Object.fromEntries(made) : value;
}
