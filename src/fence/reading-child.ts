import { messageOf } from '../model/index.ts';
import { type Declared, type ReadFile, type RenderLimits, readFiles, type SourceFile } from '../render/index.ts';
import { parseYaml } from '../yaml/index.ts';

/** What the process is asked. */
export type Question = {
  readonly id: number;
} & (
  | { readonly files: readonly SourceFile[]; readonly limits: RenderLimits; readonly declared: Declared }
  | { readonly texts: readonly string[] }
);

/** What it answers. */
export type Answer = { readonly id: number } & (
  | { readonly files: readonly ReadFile[] }
  | { readonly values: readonly (readonly unknown[])[] }
  | { readonly unreadable: string }
);

// The whole of a process that may be ended at any time: it reads what it is sent, answers, and keeps nothing.
process.on('message', (question: Question) => process.send?.(answer(question)));
process.on('disconnect', () => process.exit(0));

function answer(question: Question): Answer {
  const { id } = question;
  if ('files' in question) return { id, files: readFiles(question.files, question.limits, question.declared) };
  try {
    return { id, values: question.texts.map((text) => parseYaml(text).map(({ value }) => value)) };
  } catch (thrown) {
    return { id, unreadable: messageOf(thrown) };
  }
}
