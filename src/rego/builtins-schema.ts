import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import { type Builtin, Undefined } from './builtin.ts';
import { compile } from './builtins-text.ts';
import { RegoObject, toJson, type Value } from './value.ts';

/** JSON Schema, drafts 4, 6 and 7, by `ajv`. Error names and texts match OPA's library. References are not fetched. */
export const SCHEMA_BUILTINS: Readonly<Record<string, Builtin>> = {
  'json.verify_schema': ([schema]) => {
    try {
      validator(documentOf(schema as Value));
      return [true, null];
    } catch (thrown) {
      if (thrown instanceof Undefined) return [false, `jsonschema: ${thrown.message}`];
      throw thrown;
    }
  },
  'json.match_schema': ([document, schema]) => {
    const value = documentOf(document as Value);
    const validate = validator(documentOf(schema as Value));
    if (validate(value)) return [true, []];
    return [false, (validate.errors ?? []).map((e) => errorOf(e, value))];
  },
};

function documentOf(value: Value): unknown {
  if (typeof value === 'string') {
    try {
      return JSON.parse(value) as unknown;
    } catch {
      throw new Undefined('invalid JSON string');
    }
  }
  if (!(value instanceof RegoObject) && !Array.isArray(value))
    throw new Undefined('wrong type, expected string or object');
  return toJson(value);
}

const TYPES = ['array', 'boolean', 'integer', 'number', 'null', 'object', 'string'];
const validators = new Map<string, ValidateFunction>();
const MAX_VALIDATORS = 64;

function validator(schema: unknown): ValidateFunction {
  const key = JSON.stringify(schema);
  const known = validators.get(key);
  if (known !== undefined) return known;
  refuseUnknownTypes(schema);
  // Patterns run on RE2. Text from the schema never becomes a JavaScript regular expression in `code`.
  const regExp = Object.assign(
    (pattern: string) => ({ test: (s: string) => compile(pattern).matcher(s).find() }) as RegExp,
    {
      code: 'undefined',
    },
  );
  const ajv = new Ajv({
    strict: false,
    allErrors: true,
    validateSchema: false,
    validateFormats: false,
    addUsedSchema: false,
    logger: false,
    code: { regExp },
  });
  try {
    const made = ajv.compile(withoutMeta(schema) as object);
    if (validators.size >= MAX_VALIDATORS) validators.delete(validators.keys().next().value as string);
    validators.set(key, made);
    return made;
  } catch (thrown) {
    throw new Undefined((thrown as Error).message);
  }
}

function refuseUnknownTypes(schema: unknown): void {
  if (typeof schema !== 'object' || schema === null) return;
  const { type, ...rest } = schema as Record<string, unknown>;
  for (const one of Array.isArray(type) ? type : typeof type === 'string' ? [type] : [])
    if (!TYPES.includes(String(one)))
      throw new Undefined(
        'has a primitive type that is NOT VALID -- given: ' +
          `/${String(one)}/ Expected valid values are:[${TYPES.join(' ')}]`,
      );
  for (const [key, value] of Object.entries(rest))
    if (!['enum', 'const', 'default', 'examples'].includes(key)) refuseUnknownTypes(value);
}

// Draft 4 spells exclusive bounds and ids differently.
function withoutMeta(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(withoutMeta);
  if (typeof schema !== 'object' || schema === null) return schema;
  const {
    $schema: _,
    id,
    exclusiveMinimum,
    exclusiveMaximum,
    minimum,
    maximum,
    ...rest
  } = schema as Record<string, unknown>;
  const bounds = {
    ...(exclusiveMinimum === true
      ? { exclusiveMinimum: minimum }
      : {
          ...(minimum === undefined ? {} : { minimum }),
          ...(typeof exclusiveMinimum === 'number' ? { exclusiveMinimum } : {}),
        }),
    ...(exclusiveMaximum === true
      ? { exclusiveMaximum: maximum }
      : {
          ...(maximum === undefined ? {} : { maximum }),
          ...(typeof exclusiveMaximum === 'number' ? { exclusiveMaximum } : {}),
        }),
  };
  return Object.fromEntries([
    ...Object.entries({ ...rest, ...bounds }).map(([k, v]) => [
      k,
      ['enum', 'const', 'default'].includes(k) ? v : withoutMeta(v),
    ]),
    ...(typeof id === 'object' ? [['id', withoutMeta(id)]] : []),
  ]);
}

function errorOf(error: ErrorObject, document: unknown): Value {
  const path = error.instancePath
    .split('/')
    .slice(1)
    .map((p) => p.replaceAll('~1', '/').replaceAll('~0', '~'));
  const field = path.length === 0 ? '(Root)' : path.join('.');
  const value = path.reduce<unknown>((v, k) => (v as Record<string, unknown> | undefined)?.[k], document);
  const { type, desc } = describe(error, value);
  return new RegoObject([
    ['desc', desc],
    ['error', `${field}: ${desc}`],
    ['field', field],
    ['type', type],
  ]);
}

function describe({ keyword, params, message }: ErrorObject, value: unknown): { type: string; desc: string } {
  const p = params as Record<string, unknown>;
  switch (keyword) {
    case 'type':
      return { type: 'invalid_type', desc: `Invalid type. Expected: ${String(p['type'])}, given: ${typeName(value)}` };
    case 'required':
      return { type: 'required', desc: `${String(p['missingProperty'])} is required` };
    case 'additionalProperties':
      return {
        type: 'additional_property_not_allowed',
        desc: `Additional property ${String(p['additionalProperty'])} is not allowed`,
      };
    case 'enum':
      return {
        type: 'enum',
        desc:
          'must be one of the following: ' +
          `${(p['allowedValues'] as unknown[]).map((v) => JSON.stringify(v)).join(', ')}`,
      };
    case 'const':
      return { type: 'const', desc: `does not match: ${JSON.stringify(p['allowedValue'])}` };
    case 'pattern':
      return { type: 'pattern', desc: `Does not match pattern '${String(p['pattern'])}'` };
    case 'minLength':
      return { type: 'string_gte', desc: `String length must be greater than or equal to ${String(p['limit'])}` };
    case 'maxLength':
      return { type: 'string_lte', desc: `String length must be less than or equal to ${String(p['limit'])}` };
    case 'minimum':
      return { type: 'number_gte', desc: `Must be greater than or equal to ${String(p['limit'])}` };
    case 'maximum':
      return { type: 'number_lte', desc: `Must be less than or equal to ${String(p['limit'])}` };
    case 'exclusiveMinimum':
      return { type: 'number_gt', desc: `Must be greater than ${String(p['limit'])}` };
    case 'exclusiveMaximum':
      return { type: 'number_lt', desc: `Must be less than ${String(p['limit'])}` };
    case 'minItems':
      return { type: 'array_min_items', desc: `Array must have at least ${String(p['limit'])} items` };
    case 'maxItems':
      return { type: 'array_max_items', desc: `Array must have at most ${String(p['limit'])} items` };
    case 'uniqueItems':
      return { type: 'unique', desc: `array items[${String(p['j'])},${String(p['i'])}] must be unique` };
    case 'oneOf':
      return { type: 'number_one_of', desc: 'Must validate one and only one schema (oneOf)' };
    case 'anyOf':
      return { type: 'number_any_of', desc: 'Must validate at least one schema (anyOf)' };
    case 'not':
      return { type: 'number_not', desc: 'Must not validate the schema (not)' };
    default:
      return { type: keyword, desc: message ?? keyword };
  }
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return typeof value === 'number' ? (Number.isInteger(value) ? 'integer' : 'number') : typeof value;
}
