import { type RenderedObject, similar, type ValuePath } from '../model/index.ts';
import { type Answer, apiPath } from './api-server.ts';
import { isRecord } from './read-answer.ts';
import { SHOWN } from './refusal.ts';

type Ask = (path: string) => Promise<Answer>;

/**
 * Says where each mistake of a manifest is, as `file:line`, and which field was meant if that is one edit away.
 * `mistakes` are those of the API server: a field, and what is wrong with it. A field that is not found in the manifest
 * has the line of the object. Only those that a refusal shows are looked for. The schema is read once, and only if a
 * field is unknown.
 */
export async function located(
  mistakes: readonly string[],
  rendered: RenderedObject,
  ask: Ask,
): Promise<readonly string[]> {
  let schema: ReturnType<Ask> | undefined;
  const once: Ask = (path) => (schema ??= ask(path));
  const shown = await Promise.all(
    mistakes.slice(0, SHOWN).map(async (mistake) => {
      const { field, problem } = /^(?<field>\.\S.*?): (?<problem>.*)$/s.exec(mistake)?.groups ?? {};
      const { file } = rendered.source;
      if (field === undefined || problem === undefined) return `${file}:${rendered.source.line}: ${mistake}`;
      const path = pathOf(field, rendered.object);
      const place = `${file}:${rendered.lineOf(path)}: ${field}: ${problem}`;
      if (!problem.startsWith('field not declared')) return place;
      const meant = similar(String(path.at(-1)), await fieldsAt(path.slice(0, -1), rendered, once).catch(() => []));
      return meant === undefined ? place : `${place}; did you mean \`${meant}\`?`;
    }),
  );
  return [...shown, ...mistakes.slice(SHOWN)];
}

// `.spec.containers[name="app"].image`: keys, positions, and elements of lists by what identifies them.
const STEP = /\.(?<key>[^.[\]]+)|\[(?<position>\d+)\]|\[(?<by>[^\]]*)\]/y;

function pathOf(field: string, object: unknown): ValuePath {
  const path: (string | number)[] = [];
  let value = object;
  STEP.lastIndex = 0;
  for (let step = STEP.exec(field); step !== null; step = STEP.exec(field)) {
    const { key, position, by = '' } = step.groups ?? {};
    const next = key ?? (position === undefined ? indexOf(value, by) : Number(position));
    if (next === undefined) break;
    path.push(next);
    value = isRecord(value) || Array.isArray(value) ? (value as Record<string | number, unknown>)[next] : undefined;
  }
  return path;
}

// `name="app",port=80`, or a value of a set.
function indexOf(list: unknown, by: string): number | undefined {
  if (!Array.isArray(list)) return undefined;
  const pairs = [...by.matchAll(/(\w+)=("(?:[^"\\]|\\.)*"|[^,]+)/g)].map(([, key = '', value = '']) => [key, value]);
  const index = list.findIndex((one) =>
    pairs.length === 0
      ? JSON.stringify(one) === by.replace(/^=/, '')
      : isRecord(one) && pairs.every(([key = '', value]) => JSON.stringify(one[key]) === value),
  );
  return index < 0 ? undefined : index;
}

type Schema = {
  readonly $ref?: string;
  readonly allOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly additionalProperties?: Schema;
  readonly 'x-kubernetes-group-version-kind'?: readonly { group: string; version: string; kind: string }[];
};

// Names of the fields of an object in a manifest, by the API server's OpenAPI v3 document for its group and version.
async function fieldsAt(path: ValuePath, { ref }: RenderedObject, ask: Ask): Promise<readonly string[]> {
  const { status, body } = await ask(`/openapi/v3${apiPath(ref.apiVersion, '')}`);
  if (status !== 200) return [];
  const schemas = (body as { components?: { schemas?: Readonly<Record<string, Schema>> } }).components?.schemas ?? {};
  const whole = (schema: Schema | undefined): Schema | undefined => {
    const name = (schema?.$ref ?? schema?.allOf?.[0]?.$ref)?.split('/').at(-1);
    return name === undefined ? schema : schemas[name];
  };
  let schema = Object.values(schemas).find((one) =>
    one['x-kubernetes-group-version-kind']?.some(
      ({ group, version, kind }) =>
        kind === ref.kind && (group === '' ? version : `${group}/${version}`) === ref.apiVersion,
    ),
  );
  for (const step of path)
    schema = whole(
      typeof step === 'number' ? schema?.items : (schema?.properties?.[step] ?? schema?.additionalProperties),
    );
  return Object.keys(schema?.properties ?? {});
}
