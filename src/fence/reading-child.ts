import { messageOf, orderedValue } from '../model/index.ts';
import {
  type Declared,
  exceeded,
  measure,
  type ReadFile,
  type RenderLimits,
  readFiles,
  type SourceFile,
} from '../render/index.ts';
import { parseYaml, type YamlDocument } from '../yaml/index.ts';

/** Request to the process. */
export type Question = {
  readonly id: number;
} & (
  | { readonly files: readonly SourceFile[]; readonly limits: RenderLimits; readonly declared: Declared }
  | { readonly texts: readonly string[]; readonly limits: RenderLimits; readonly ordered: boolean }
);

/** Answer of the process. */
export type Answer = { readonly id: number } & (
  | { readonly files: readonly ReadFile[] }
  | { readonly values: readonly (readonly unknown[])[] }
  | { readonly unreadable: string }
  | { readonly limit: keyof RenderLimits; readonly text: string }
);

// The whole process, which may be killed at any time: it reads a request, answers, and keeps nothing.
process.on('message', (question: Question) => process.send?.(answer(question)));
process.on('disconnect', () => process.exit(0));

function answer(question: Question): Answer {
  const { id } = question;
  if ('files' in question) return { id, files: readFiles(question.files, question.limits, question.declared) };
  try {
    return { id, ...valuesOf(question.texts, question.limits, question.ordered) };
  } catch (thrown) {
    return { id, unreadable: messageOf(thrown).slice(0, 2000) };
  }
}

// Writing an answer expands aliases: small input may become large, so it is measured first.
function valuesOf(texts: readonly string[], limits: RenderLimits, ordered: boolean) {
  const values: unknown[][] = [];
  let [objects, counted, size] = [0, 0, 0];
  for (const text of texts) {
    const documents = parseYaml(text);
    for (const { value } of documents) {
      const measured = measure(value, { values: limits.values - counted, size: limits.size - size });
      objects++;
      counted += measured.values;
      size += measured.size;
      const over = exceeded({ objects, values: counted, size }, limits);
      if (over !== undefined) return { limit: over.limit, text: `holds ${over.text}` };
    }
    values.push(documents.map((document) => (ordered ? inOrder(document) : document.value)));
  }
  return { values };
}

function inOrder({ value, positionOf }: YamlDocument): unknown {
  return orderedValue(value, positionOf);
}
