import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import {
  count,
  type EnvironmentSet,
  MOST_IN_A_SET,
  messageOf,
  setElement,
  substitutedLength,
  substituteText,
} from '../model/index.ts';
import { parseYaml } from '../yaml/index.ts';
import type { Found, Problem } from './found.ts';

type Element = z.infer<typeof setElement>;
type Path = (string | number)[];

/** The Environments that a set describes, in the order of its elements, and problems of the set itself. */
export type Described = { readonly environments: readonly DescribedEnvironment[]; readonly problems: Problem[] };

/** One of them, not checked yet. Its `file` also says for which element it was made. */
export type DescribedEnvironment = Found & { readonly element: string };

const MAX_FILE = 4 * 1024 * 1024;
const MOST_CHARACTERS = 64 * 1024 * 1024; // of all its environments: a short template may repeat a long text
const OF_A_VALUE = 16; // characters that a value counts for, beside its own: lists of numbers take memory, too

/** Makes the documents of an EnvironmentSet. Only values are replaced, by texts; the caller checks the documents. */
export function describedBy(set: Found, { spec }: EnvironmentSet): Described {
  const problems: Problem[] = [];
  const lacking: OfElement[] = [];
  const wrong = (path: Path, text: string) =>
    problems.push({ file: set.file, line: set.document.lineOf(path), path: path.join('.'), text });
  const { elements, why } = elementsOf(set, spec);
  if (why !== undefined) wrong(['spec', 'clusters', 'file'], why);
  const environments: DescribedEnvironment[] = [];
  const left = { characters: MOST_CHARACTERS };
  for (const [i, element] of elements.entries()) {
    const label = element['name'] ?? `${i + 1}`;
    const { apiVersion } = set.document.value as { apiVersion: string };
    const missing = (name: string, path: Path) =>
      lacking.push({
        element: label,
        path: ['template', ...path].join('.'),
        line: set.document.lineOf(['spec', 'template', ...path]),
        text: `there is no \`${name}\``,
      });
    const filling = { element, missing, left };
    const { metadata, spec: described } = filled(spec.template, [], filling) as EnvironmentSet['spec']['template'];
    if (left.characters < 0) {
      wrong(['spec', 'template'], `its environments have more than ${MOST_CHARACTERS} characters together`);
      break;
    }
    const value = { apiVersion, kind: 'Environment', metadata, spec: described };
    environments.push({ ...set, file: `${set.file} [${label}]`, document: inTemplate(set, value), element: label });
  }
  problems.push(...together(set, lacking));
  return { environments: problems.length > 0 ? [] : environments, problems };
}

/** Returns problems of described environments as problems of their set. */
export function problemsOfSet(
  set: Found,
  environments: readonly DescribedEnvironment[],
  problems: readonly Problem[],
): readonly Problem[] {
  const elements = new Map(environments.map((e) => [e.file, e.element]));
  const mine = problems.flatMap(({ file, line, path, text }): OfElement[] => {
    const element = elements.get(file);
    return element === undefined ? [] : [{ element, line, text, path: path === '' ? 'template' : `template.${path}` }];
  });
  return together(set, mine);
}

/** A problem of one element; its path is within `spec`. */
type OfElement = Pick<Problem, 'line' | 'path' | 'text'> & { readonly element: string };

// A mistake in a template is in each of its environments: one line for each place, with the first of them.
function together(set: Found, problems: readonly OfElement[]): readonly Problem[] {
  const places = Map.groupBy(problems, ({ line, path }) => `${line} ${path}`);
  return [...places.values()].map((all) => {
    const { element, line, path, text } = all[0] as OfElement;
    const others = all.length === 1 ? '' : `, and ${count(all.length - 1, 'more problem')} like it`;
    return { file: set.file, line, path: `spec.${path}`, text: `${text} (element \`${element}\`${others})` };
  });
}

// The document's lines are those of the template.
function inTemplate({ document }: Found, value: unknown): Found['document'] {
  const within = (path: readonly (string | number)[]) => ['spec', 'template', ...path];
  return {
    ...document,
    value,
    lineOf: (path) => document.lineOf(within(path)),
    positionOf: (path) => document.positionOf(within(path)),
  };
}

type Filling = {
  readonly element: Element;
  readonly missing: (name: string, path: Path) => void;
  /** Characters that the set may still have. */
  readonly left: { characters: number };
};

// Measured before it is built.
function filled(value: unknown, path: Path, filling: Filling): unknown {
  const { element, missing, left } = filling;
  left.characters -= OF_A_VALUE + (typeof value === 'string' ? substitutedLength(value, element) : 0);
  if (left.characters < 0) return undefined;
  if (typeof value === 'string') return substituteText(value, element, (name) => missing(name, path));
  if (Array.isArray(value)) return value.map((item, i) => filled(item, [...path, i], filling));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, filled(inner, [...path, key], filling)]));
}

function elementsOf(
  { here }: Found,
  { list, clusters }: EnvironmentSet['spec'],
): { readonly elements: readonly Element[]; readonly why?: string } {
  if (list !== undefined) return { elements: list.elements };
  const file = resolve(here, clusters?.file ?? '');
  try {
    if (statSync(file).size > MAX_FILE) return { elements: [], why: `\`${file}\` is larger than ${MAX_FILE} bytes` };
    const documents = parseYaml(readFileSync(file, 'utf8'));
    const parsed = clustersSchema.safeParse(documents.length === 1 ? documents[0]?.value : undefined);
    if (parsed.success) return { elements: parsed.data };
    const [issue] = parsed.error.issues;
    const at = issue?.path as Path;
    const line = documents[0]?.lineOf(at) ?? 1;
    return { elements: [], why: `\`${file}:${line}\`: expected ${expectedBy(issue)} at \`${at.join('.') || '.'}\`` };
  } catch (thrown) {
    return {
      elements: [],
      why: `expected a readable list of clusters, found \`${clusters?.file}\`: ${messageOf(thrown)}`,
    };
  }
}

const clustersSchema = z
  .array(setElement, 'a list of mappings')
  .min(1, 'at least one cluster')
  .max(MOST_IN_A_SET, `at most ${MOST_IN_A_SET} clusters`);

function expectedBy(issue: z.core.$ZodIssue | undefined): string {
  return issue === undefined || issue.message.startsWith('Invalid') ? 'a mapping of texts' : issue.message;
}
