import {
  type ASTNode,
  buildASTSchema,
  type ConstDirectiveNode,
  type DefinitionNode,
  type DirectiveNode,
  type DocumentNode,
  GraphQLError,
  type GraphQLSchema,
  Kind,
  parse as parseGraphQl,
  parseType,
  parseValue,
  print as printGraphQl,
  type SelectionNode,
  type TypeNode,
  type ValueNode,
  validate,
  validateSchema,
} from 'graphql';
import { type Builtin, text, Undefined } from './builtin.ts';
import { fromJson, RegoObject, toJson, type Value } from './value.ts';

/**
 * GraphQL builtins, based on the reference implementation. Documents have the shape OPA's library produces
 * (github.com/vektah/gqlparser/v2/ast, without positions and empty values), so rules can walk through them.
 */
export const GRAPHQL_BUILTINS: Readonly<Record<string, Builtin>> = {
  'graphql.parse_query': ([query]) => regoOf(queryShape(parseQuery(text(query)))),
  'graphql.parse_schema': ([schema]) => regoOf(schemaShape(parseSchema(text(schema)))),
  'graphql.parse': ([query, schema]) => {
    const { documents, problem } = verified(query, schema);
    if (documents === undefined) throw new Undefined(problem);
    return documents;
  },
  'graphql.parse_and_verify': ([query, schema]) => {
    const { documents } = verified(query, schema);
    return documents === undefined ? [false, new RegoObject(), new RegoObject()] : [true, ...documents];
  },
  'graphql.is_valid': ([query, schema]) => verified(query, schema).documents !== undefined,
  'graphql.schema_is_valid': ([schema]) => {
    try {
      usable(schemaOf(schema));
      return true;
    } catch (thrown) {
      if (thrown instanceof Undefined) return false;
      throw thrown;
    }
  },
};

const MAX_TOKENS = 100_000; // no real schema has that many, and validation is quadratic in the worst case

function refused<T>(run: () => T): T {
  try {
    return run();
  } catch (thrown) {
    if (thrown instanceof GraphQLError || thrown instanceof Error) throw new Undefined(thrown.message);
    throw thrown;
  }
}

const EXECUTABLE: readonly string[] = [Kind.OPERATION_DEFINITION, Kind.FRAGMENT_DEFINITION];

function documentIn(source: string, executable: boolean): DocumentNode {
  const document = refused(() =>
    source.trim() === '' || /^(\s|#[^\n]*)*$/.test(source)
      ? ({ kind: Kind.DOCUMENT, definitions: [] } as DocumentNode)
      : parseGraphQl(source, { noLocation: true, maxTokens: MAX_TOKENS, allowLegacyFragmentVariables: true }),
  );
  const other = document.definitions.find((d) => EXECUTABLE.includes(d.kind) !== executable);
  if (other !== undefined) throw new Undefined(`unexpected ${other.kind}`);
  return document;
}

const parseQuery = (source: string) => documentIn(source, true);
const parseSchema = (source: string) => documentIn(source, false);

function verified(
  query: Value | undefined,
  schema: Value | undefined,
): { documents?: [Value, Value]; problem?: string } {
  try {
    const q = typeof query === 'string' ? parseQuery(query) : queryFrom(query);
    const s = schemaOf(schema);
    const built = usable(s);
    const rootless = q.definitions.find(
      (d) => d.kind === Kind.OPERATION_DEFINITION && built.getRootType(d.operation) == null,
    );
    if (rootless !== undefined) return { problem: 'the schema has no root for the operation' };
    const errors = refused(() => validate(built, q));
    if (errors.length > 0) return { problem: errors[0]?.message ?? '' };
    return { documents: [regoOf(queryShape(q)), regoOf(schemaShape(s))] };
  } catch (thrown) {
    if (thrown instanceof Undefined) return { problem: thrown.message };
    throw thrown;
  }
}

function schemaOf(schema: Value | undefined): DocumentNode {
  return typeof schema === 'string' ? parseSchema(schema) : schemaFrom(schema);
}

// Skips a check that OPA's library does not make.
const NOT_ASKED = /^Query root type must be provided/;

function usable(given: DocumentNode): GraphQLSchema {
  const document = withBases(given);
  const schema = refused(() => buildASTSchema(document));
  const problem = validateSchema(schema).find((e) => !NOT_ASKED.test(e.message));
  if (problem !== undefined) throw new Undefined(problem.message);
  return refused(() => buildASTSchema(document, { assumeValid: true }));
}

// An extension of a type that is not defined anywhere defines that type.
function withBases(document: DocumentNode): DocumentNode {
  const names = new Set(
    document.definitions.flatMap((d) => (d.kind.endsWith('TypeDefinition') && 'name' in d ? [d.name?.value] : [])),
  );
  const definitions = document.definitions.map((d) => {
    if (!d.kind.endsWith('TypeExtension') || !('name' in d) || names.has(d.name?.value)) return d;
    names.add(d.name?.value);
    return { ...d, kind: d.kind.replace('Extension', 'Definition') } as DefinitionNode;
  });
  return { ...document, definitions };
}

type Shape = { [key: string]: unknown };

function regoOf(shape: Shape): Value {
  return fromJson(pruned(shape) as object);
}

// OPA omits null and empty values; false and the empty string stay.
function pruned(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(pruned).filter((v) => !empty(v));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(
      Object.entries(value)
        .map(([k, v]) => [k, pruned(v)] as const)
        .filter(([, v]) => !empty(v)),
    );
  return value;
}

function empty(value: unknown): boolean {
  return value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0);
}

function queryShape(document: DocumentNode): Shape {
  return {
    Operations: document.definitions.flatMap((d) =>
      d.kind !== Kind.OPERATION_DEFINITION
        ? []
        : [
            {
              Operation: d.operation,
              Name: d.name?.value ?? '',
              VariableDefinitions: variables(d.variableDefinitions),
              Directives: directives(d.directives),
              SelectionSet: d.selectionSet.selections.map(selection),
            },
          ],
    ),
    Fragments: document.definitions.flatMap((d) =>
      d.kind !== Kind.FRAGMENT_DEFINITION
        ? []
        : [
            {
              Name: d.name.value,
              VariableDefinition: variables(d.variableDefinitions),
              TypeCondition: d.typeCondition.name.value,
              Directives: directives(d.directives),
              SelectionSet: d.selectionSet.selections.map(selection),
            },
          ],
    ),
  };
}

function variables(all: Extract<DefinitionNode, { kind: 'OperationDefinition' }>['variableDefinitions']): Shape[] {
  return (all ?? []).map((v) => ({
    Variable: v.variable.name.value,
    Type: typeShape(v.type),
    DefaultValue: v.defaultValue === undefined ? null : valueShape(v.defaultValue),
    Directives: directives(v.directives),
    Used: false,
  }));
}

function selection(node: SelectionNode): Shape {
  switch (node.kind) {
    case Kind.FIELD:
      return {
        Alias: node.alias?.value ?? node.name.value,
        Name: node.name.value,
        Arguments: (node.arguments ?? []).map((a) => ({ Name: a.name.value, Value: valueShape(a.value) })),
        Directives: directives(node.directives),
        SelectionSet: (node.selectionSet?.selections ?? []).map(selection),
      };
    case Kind.FRAGMENT_SPREAD:
      return { Name: node.name.value, Directives: directives(node.directives) };
    case Kind.INLINE_FRAGMENT:
      return {
        TypeCondition: node.typeCondition?.name.value ?? '',
        Directives: directives(node.directives),
        SelectionSet: node.selectionSet.selections.map(selection),
      };
  }
}

function directives(all: readonly (DirectiveNode | ConstDirectiveNode)[] | undefined): Shape[] {
  return (all ?? []).map((d) => ({
    Name: d.name.value,
    Arguments: (d.arguments ?? []).map((a) => ({ Name: a.name.value, Value: valueShape(a.value) })),
    Location: '',
  }));
}

function typeShape(type: TypeNode): Shape {
  if (type.kind === Kind.NON_NULL_TYPE) return { ...typeShape(type.type), NonNull: true };
  return type.kind === Kind.LIST_TYPE
    ? { NamedType: '', Elem: typeShape(type.type), NonNull: false }
    : { NamedType: type.name.value, NonNull: false };
}

// Same order as gqlparser's ValueKind.
const KINDS = [
  Kind.VARIABLE,
  Kind.INT,
  Kind.FLOAT,
  Kind.STRING,
  'Block',
  Kind.BOOLEAN,
  Kind.NULL,
  Kind.ENUM,
  Kind.LIST,
  Kind.OBJECT,
] as const;

function valueShape(node: ValueNode): Shape {
  const kind = KINDS.indexOf(node.kind === Kind.STRING && node.block === true ? 'Block' : node.kind);
  const shape = (Raw: string, Children: Shape[] = []): Shape => ({
    Raw,
    Children,
    Kind: kind,
    ExpectedTypeHasDefault: false,
  });
  switch (node.kind) {
    case Kind.VARIABLE:
      return shape(node.name.value);
    case Kind.NULL:
      return shape('null');
    case Kind.BOOLEAN:
      return shape(String(node.value));
    case Kind.LIST:
      return shape(
        '',
        node.values.map((v) => ({ Name: '', Value: valueShape(v) })),
      );
    case Kind.OBJECT:
      return shape(
        '',
        node.fields.map((f) => ({ Name: f.name.value, Value: valueShape(f.value) })),
      );
    default:
      return shape(node.value);
  }
}

const DEFINITION_KINDS: Readonly<Record<string, string>> = {
  ScalarType: 'SCALAR',
  ObjectType: 'OBJECT',
  InterfaceType: 'INTERFACE',
  UnionType: 'UNION',
  EnumType: 'ENUM',
  InputObjectType: 'INPUT_OBJECT',
};

type Anything = { readonly [K in string]: never } & ASTNode;

function schemaShape(document: DocumentNode): Shape {
  const shape: Record<'Schema' | 'SchemaExtension' | 'Directives' | 'Definitions' | 'Extensions', Shape[]> = {
    Schema: [],
    SchemaExtension: [],
    Directives: [],
    Definitions: [],
    Extensions: [],
  };
  for (const d of document.definitions) {
    if (d.kind === Kind.SCHEMA_DEFINITION || d.kind === Kind.SCHEMA_EXTENSION)
      shape[d.kind === Kind.SCHEMA_DEFINITION ? 'Schema' : 'SchemaExtension'].push({
        Description: 'description' in d ? (d.description?.value ?? '') : '',
        Directives: directives(d.directives),
        OperationTypes: (d.operationTypes ?? []).map((o) => ({ Operation: o.operation, Type: o.type.name.value })),
      });
    else if (d.kind === Kind.DIRECTIVE_DEFINITION)
      shape.Directives.push({
        Description: d.description?.value ?? '',
        Name: d.name.value,
        Arguments: (d.arguments ?? []).map(input),
        Locations: d.locations.map((l) => l.value),
        IsRepeatable: d.repeatable,
      });
    else shape[d.kind.endsWith('Extension') ? 'Extensions' : 'Definitions'].push(definition(d as unknown as Anything));
  }
  return shape;
}

type Named = { readonly name: { readonly value: string } };
type Described = Named & {
  readonly description?: { readonly value: string };
  readonly directives?: readonly ConstDirectiveNode[];
};
type InputNode = Described & { readonly type: TypeNode; readonly defaultValue?: ValueNode };
type FieldNode = Described & {
  readonly type: TypeNode;
  readonly arguments?: readonly InputNode[];
  readonly defaultValue?: ValueNode;
};

function definition(node: Anything): Shape {
  const d = node as unknown as Described & {
    readonly kind: string;
    readonly interfaces?: readonly Named[];
    readonly fields?: readonly FieldNode[];
    readonly types?: readonly Named[];
    readonly values?: readonly Described[];
  };
  return {
    Kind: DEFINITION_KINDS[d.kind.replace(/(Definition|Extension)$/, '')],
    Description: d.description?.value ?? '',
    Name: d.name.value,
    Directives: directives(d.directives),
    Interfaces: (d.interfaces ?? []).map((i) => i.name.value),
    Fields: (d.fields ?? []).map((f) => ({
      ...input(f),
      Arguments: (f.arguments ?? []).map(input),
    })),
    Types: (d.types ?? []).map((t) => t.name.value),
    EnumValues: (d.values ?? []).map((v) => ({
      Description: v.description?.value ?? '',
      Name: v.name.value,
      Directives: directives(v.directives),
    })),
    BuiltIn: false,
  };
}

function input(node: InputNode): Shape {
  return {
    Description: node.description?.value ?? '',
    Name: node.name.value,
    DefaultValue: node.defaultValue === undefined ? null : valueShape(node.defaultValue),
    Type: typeShape(node.type),
    Directives: directives(node.directives),
  };
}

// Accepts a document that a rule parsed earlier: it is printed as text and parsed again.

function shapeOf(value: Value | undefined): Shape {
  if (!(value instanceof RegoObject)) throw new Undefined('wrong type, expected string or object');
  return toJson(value) as Shape;
}

const list = (shape: Shape, key: string): Shape[] => (Array.isArray(shape[key]) ? (shape[key] as Shape[]) : []);
const word = (shape: Shape, key: string): string => (typeof shape[key] === 'string' ? (shape[key] as string) : '');

function queryFrom(value: Value | undefined): DocumentNode {
  const shape = shapeOf(value);
  const operations = list(shape, 'Operations').map(
    (o) =>
      `${word(o, 'Operation') || 'query'} ${word(o, 'Name')}${variableText(list(o, 'VariableDefinitions'))} ` +
      `${directiveText(o)} ${selectionText(o)}`,
  );
  const fragments = list(shape, 'Fragments').map(
    (f) => `fragment ${word(f, 'Name')} on ${word(f, 'TypeCondition')} ${directiveText(f)} ${selectionText(f)}`,
  );
  return parseQuery([...operations, ...fragments].join('\n'));
}

function variableText(all: readonly Shape[]): string {
  if (all.length === 0) return '';
  const text = (v: Shape) =>
    `$${word(v, 'Variable')}: ${typeText(v['Type'] as Shape)}${defaultText(v)} ${directiveText(v)}`;
  return `(${all.map(text).join(', ')})`;
}

function selectionText(shape: Shape): string {
  const all = list(shape, 'SelectionSet');
  if (all.length === 0) return '';
  return `{ ${all
    .map((s) => {
      if ('TypeCondition' in s)
        return (
          `...${word(s, 'TypeCondition') === '' ? '' : ` on ${word(s, 'TypeCondition')}`} ` +
          `${directiveText(s)} ${selectionText(s)}`
        );
      if (!('Alias' in s)) return `...${word(s, 'Name')} ${directiveText(s)}`;
      const alias = word(s, 'Alias');
      return (
        `${alias !== '' && alias !== word(s, 'Name') ? `${alias}: ` : ''}${word(s, 'Name')}${argumentText(s)} ` +
        `${directiveText(s)} ${selectionText(s)}`
      );
    })
    .join('\n')} }`;
}

function argumentText(shape: Shape): string {
  const all = list(shape, 'Arguments');
  return all.length === 0
    ? ''
    : `(${all.map((a) => `${word(a, 'Name')}: ${valueText(a['Value'] as Shape)}`).join(', ')})`;
}

function directiveText(shape: Shape): string {
  return list(shape, 'Directives')
    .map((d) => `@${word(d, 'Name')}${argumentText(d)}`)
    .join(' ');
}

function typeText(type: Shape | undefined): string {
  if (type === undefined) throw new Undefined('a type is missing');
  const name = word(type, 'NamedType') || `[${typeText(type['Elem'] as Shape | undefined)}]`;
  const written = `${name}${type['NonNull'] === true ? '!' : ''}`;
  return printGraphQl(refused(() => parseType(written)));
}

function defaultText(shape: Shape): string {
  return shape['DefaultValue'] === undefined || shape['DefaultValue'] === null
    ? ''
    : ` = ${valueText(shape['DefaultValue'] as Shape)}`;
}

function valueText(shape: Shape | undefined): string {
  if (shape === undefined) throw new Undefined('a value is missing');
  const children = list(shape, 'Children');
  switch (KINDS[Number(shape['Kind'] ?? 0)]) {
    case Kind.VARIABLE:
      return `$${word(shape, 'Raw')}`;
    case Kind.STRING:
    case 'Block':
      return JSON.stringify(word(shape, 'Raw'));
    case Kind.LIST:
      return `[${children.map((c) => valueText(c['Value'] as Shape | undefined)).join(', ')}]`;
    case Kind.OBJECT:
      return `{${children.map((c) => `${word(c, 'Name')}: ${valueText(c['Value'] as Shape | undefined)}`).join(', ')}}`;
    default:
      return printGraphQl(refused(() => parseValue(word(shape, 'Raw'))));
  }
}

function schemaFrom(value: Value | undefined): DocumentNode {
  const shape = shapeOf(value);
  const roots = (s: Shape) =>
    `${directiveText(s)} { ${list(s, 'OperationTypes')
      .map((o) => `${word(o, 'Operation')}: ${word(o, 'Type')}`)
      .join('\n')} }`;
  return parseSchema(
    [
      ...list(shape, 'Schema').map((s) => `schema ${roots(s)}`),
      ...list(shape, 'SchemaExtension').map((s) => `extend schema ${roots(s)}`),
      ...list(shape, 'Directives').map(
        (d) =>
          `directive @${word(d, 'Name')}${inputText(list(d, 'Arguments'))}` +
          `${d['IsRepeatable'] === true ? ' repeatable' : ''} ` +
          `on ${(Array.isArray(d['Locations']) ? d['Locations'] : []).join(' | ')}`,
      ),
      ...list(shape, 'Definitions').map(definitionText),
      ...list(shape, 'Extensions').map((e) => `extend ${definitionText(e)}`),
    ].join('\n'),
  );
}

const WORDS: Readonly<Record<string, string>> = {
  SCALAR: 'scalar',
  OBJECT: 'type',
  INTERFACE: 'interface',
  UNION: 'union',
  ENUM: 'enum',
  INPUT_OBJECT: 'input',
};

function definitionText(d: Shape): string {
  const interfaces =
    Array.isArray(d['Interfaces']) && d['Interfaces'].length > 0 ? ` implements ${d['Interfaces'].join(' & ')}` : '';
  const types = Array.isArray(d['Types']) && d['Types'].length > 0 ? ` = ${d['Types'].join(' | ')}` : '';
  const fields = list(d, 'Fields').map(
    (f) =>
      `${word(f, 'Name')}${inputText(list(f, 'Arguments'))}: ` +
      `${typeText(f['Type'] as Shape)}${defaultText(f)} ${directiveText(f)}`,
  );
  const values = list(d, 'EnumValues').map((v) => `${word(v, 'Name')} ${directiveText(v)}`);
  const body = [...fields, ...values];
  return (
    `${WORDS[word(d, 'Kind')] ?? ''} ${word(d, 'Name')}${interfaces} ` +
    `${directiveText(d)}${types}${body.length === 0 ? '' : ` { ${body.join('\n')} }`}`
  );
}

function inputText(all: readonly Shape[]): string {
  if (all.length === 0) return '';
  const text = (a: Shape) => `${word(a, 'Name')}: ${typeText(a['Type'] as Shape)}${defaultText(a)} ${directiveText(a)}`;
  return `(${all.map(text).join(', ')})`;
}
