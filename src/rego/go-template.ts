import { Undefined } from './builtin.ts';
import { sprintf } from './sprintf.ts';
import { compare, print, RegoNumber, RegoObject, RegoSet, type Value } from './value.ts';

/** A value a template works on; undefined if the key is missing. */
type Item = Value | undefined;
type Scope = { readonly dot: Item; readonly variables: Map<string, Item>[] };
type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'show'; readonly pipe: Pipe }
  | {
      readonly kind: 'branch';
      readonly word: 'if' | 'with' | 'range';
      readonly pipe: Pipe;
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[];
    };
type Pipe = {
  readonly names: readonly string[];
  readonly assigns: boolean;
  readonly commands: readonly (readonly Operand[])[];
};
type Operand =
  | { readonly kind: 'value'; readonly value: Value }
  | {
      readonly kind: 'path';
      readonly root: 'dot' | 'variable' | 'pipe';
      readonly name: string;
      readonly pipe?: Pipe;
      readonly fields: readonly string[];
    }
  | { readonly kind: 'function'; readonly name: string };

const MAX_OUTPUT = 1_000_000; // characters; templates are for messages

/**
 * Renders a template in the syntax of Go's `text/template` (https://pkg.go.dev/text/template). It supports fields,
 * variables, `if`, `with`, `range`, pipes and the comparison and formatting functions. `define`, `template` and `block`
 * make no sense in a single string and are refused.
 */
export function renderTemplate(template: string, values: RegoObject): string {
  const tokens = tokenize(template);
  let at = 0;
  const block = (): { nodes: Node[]; end: string } => {
    const nodes: Node[] = [];
    while (at < tokens.length) {
      const token = tokens[at++] as Token;
      if (token.kind === 'text') nodes.push({ kind: 'text', text: token.text });
      else {
        const word = /^(if|with|range|else|end|define|template|block|break|continue)\b/.exec(token.text)?.[1];
        const rest = word === undefined ? token.text : token.text.slice(word.length).trim();
        if (word === 'end' || word === 'else') return { nodes, end: token.text };
        if (word === 'if' || word === 'with' || word === 'range') nodes.push(branch(word, rest));
        else if (word !== undefined) throw new Undefined(`\`${word}\` is not supported in templates`);
        else if (token.text !== '' && !token.text.startsWith('/*'))
          nodes.push({ kind: 'show', pipe: parsePipe(token.text) });
      }
    }
    return { nodes, end: '' };
  };
  const branch = (word: 'if' | 'with' | 'range', pipe: string): Node => {
    const body = block();
    let otherwise: readonly Node[] = [];
    if (body.end.startsWith('else')) {
      const chained = /^else\s+(if|with)\b(.*)$/s.exec(body.end);
      if (chained !== null) otherwise = [branch(chained[1] as 'if', (chained[2] as string).trim())];
      else {
        const last = block();
        if (last.end !== 'end') throw new Undefined('missing `end` after `else`');
        otherwise = last.nodes;
      }
    } else if (body.end !== 'end') throw new Undefined(`missing \`end\` after \`${word}\``);
    return { kind: 'branch', word, pipe: parsePipe(pipe), body: body.nodes, otherwise };
  };
  const { nodes, end } = block();
  if (end !== '') throw new Undefined(`unexpected \`${end}\``);
  const out: string[] = [];
  let size = 0;
  const write = (text: string) => {
    size += text.length;
    if (size > MAX_OUTPUT) throw new Undefined('the rendered template is too long');
    out.push(text);
  };
  run(nodes, { dot: values, variables: [new Map<string, Item>([['$', values]])] }, write);
  return out.join('').replaceAll('<no value>', '<undefined>');
}

type Token = { readonly kind: 'text' | 'action'; readonly text: string };

function tokenize(template: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let trim = false;
  const text = (raw: string) => {
    const shown = trim ? raw.trimStart() : raw;
    if (shown !== '') tokens.push({ kind: 'text', text: shown });
  };
  for (;;) {
    const open = template.indexOf('{{', at);
    if (open < 0) {
      text(template.slice(at));
      return tokens;
    }
    const close = closing(template, open + 2);
    let action = template.slice(open + 2, close);
    const before = template.slice(at, open);
    const cutsLeft = /^-\s/.test(action);
    text(cutsLeft ? before.trimEnd() : before);
    trim = /\s-$/.test(action);
    if (cutsLeft) action = action.slice(1);
    if (trim) action = action.slice(0, -1);
    tokens.push({ kind: 'action', text: action.trim() });
    at = close + 2;
  }
}

function closing(template: string, from: number): number {
  for (let i = from; i < template.length; i++) {
    if (template.startsWith('}}', i)) return i;
    if (template[i] === '"' || template[i] === '`') {
      const quote = template[i];
      for (i++; i < template.length && template[i] !== quote; i++) if (quote === '"' && template[i] === '\\') i++;
    }
  }
  throw new Undefined('missing `}}` after an action');
}

function parsePipe(source: string): Pipe {
  const declared = /^(\$\w+)(?:\s*,\s*(\$\w+))?\s*(:?=)\s*/.exec(source);
  const words = lex(declared === null ? source : source.slice(declared[0].length));
  const commands: Operand[][] = [[]];
  for (const word of words) {
    if (word === '|') commands.push([]);
    else (commands.at(-1) as Operand[]).push(operand(word));
  }
  if (commands.some((c) => c.length === 0)) throw new Undefined('an empty command');
  return {
    names: declared === null ? [] : [declared[1], declared[2]].filter((n) => n !== undefined),
    assigns: declared?.[3] === '=',
    commands,
  };
}

function lex(source: string): string[] {
  const words: string[] = [];
  for (let at = 0; at < source.length; ) {
    const rest = source.slice(at);
    const space = /^\s+/.exec(rest);
    if (space !== null) {
      at += space[0].length;
      continue;
    }
    if (rest[0] === '(') {
      let depth = 0;
      let i = 0;
      do {
        if (rest[i] === '(') depth++;
        else if (rest[i] === ')') depth--;
        i++;
      } while (depth > 0 && i < rest.length);
      if (depth > 0) throw new Undefined('missing closing parenthesis');
      const fields = /^(\.\w+)*/.exec(rest.slice(i))?.[0] ?? '';
      words.push(rest.slice(0, i) + fields);
      at += i + fields.length;
      continue;
    }
    const word = /^("(?:[^"\\]|\\.)*"|`[^`]*`|\||[^\s|()]+)/.exec(rest)?.[0];
    if (word === undefined) throw new Undefined('invalid action');
    words.push(word);
    at += word.length;
  }
  return words;
}

function operand(word: string): Operand {
  if (word === 'true' || word === 'false') return { kind: 'value', value: word === 'true' };
  if (word === 'nil') return { kind: 'value', value: null };
  if (word[0] === '"') return { kind: 'value', value: quoted(word) };
  if (word[0] === '`') return { kind: 'value', value: word.slice(1, -1) };
  if (/^[+-]?\d+$/.test(word)) return { kind: 'value', value: Number(word) };
  if (/^[+-]?\d*\.\d+$/.test(word)) return { kind: 'value', value: new RegoNumber(word) };
  const fields = (text: string) => text.split('.').filter((f) => f !== '');
  if (word[0] === '(') {
    const close = word.lastIndexOf(')');
    return {
      kind: 'path',
      root: 'pipe',
      name: '',
      pipe: parsePipe(word.slice(1, close)),
      fields: fields(word.slice(close + 1)),
    };
  }
  if (word[0] === '.') return { kind: 'path', root: 'dot', name: '', fields: fields(word) };
  if (word[0] === '$') {
    const [name = '$', ...rest] = word.split('.');
    return { kind: 'path', root: 'variable', name, fields: rest };
  }
  return { kind: 'function', name: word };
}

function run(nodes: readonly Node[], scope: Scope, write: (text: string) => void): void {
  for (const node of nodes) {
    if (node.kind === 'text') write(node.text);
    else if (node.kind === 'show') {
      const value = evaluate(node.pipe, scope);
      if (node.pipe.names.length === 0) write(shown(value));
    } else runBranch(node, scope, write);
  }
}

function runBranch(node: Extract<Node, { kind: 'branch' }>, scope: Scope, write: (text: string) => void): void {
  const inner: Scope = { dot: scope.dot, variables: [...scope.variables, new Map()] };
  if (node.word !== 'range') {
    const value = evaluate(node.pipe, inner);
    if (isTrue(value)) run(node.body, node.word === 'with' ? { ...inner, dot: value } : inner, write);
    else run(node.otherwise, inner, write);
    return;
  }
  const over = evaluate({ ...node.pipe, names: [] }, inner);
  const items: (readonly [Value, Value])[] =
    over instanceof RegoObject
      ? over.sorted()
      : over instanceof RegoSet
        ? over.sorted().map((v, i) => [i, v] as const)
        : Array.isArray(over)
          ? over.map((v: Value, i) => [i, v] as const)
          : [];
  if (items.length === 0) run(node.otherwise, inner, write);
  for (const [key, value] of items) {
    const names = new Map<string, Item>();
    if (node.pipe.names.length === 1) names.set(node.pipe.names[0] as string, value);
    if (node.pipe.names.length === 2) {
      names.set(node.pipe.names[0] as string, key);
      names.set(node.pipe.names[1] as string, value);
    }
    run(node.body, { dot: value, variables: [...inner.variables, names] }, write);
  }
}

function evaluate(pipe: Pipe, scope: Scope): Item {
  let value: Item;
  pipe.commands.forEach((command, i) => {
    const piped = i === 0 ? [] : [value];
    const [first, ...rest] = command;
    if (first?.kind === 'function') value = call(first.name, [...rest.map((o) => resolve(o, scope)), ...piped]);
    else if (rest.length > 0 || piped.length > 0) throw new Undefined('only functions take arguments');
    else value = resolve(first as Operand, scope);
  });
  for (const name of pipe.names) {
    const owner = pipe.assigns ? scope.variables.findLast((v) => v.has(name)) : scope.variables.at(-1);
    if (owner === undefined) throw new Undefined(`undefined variable \`${name}\``);
    owner.set(name, value);
  }
  return value;
}

function resolve(what: Operand, scope: Scope): Item {
  if (what.kind === 'value') return what.value;
  if (what.kind === 'function') return call(what.name, []);
  let value: Item;
  if (what.root === 'dot') value = scope.dot;
  else if (what.root === 'pipe') value = evaluate(what.pipe as Pipe, scope);
  else {
    const owner = scope.variables.findLast((v) => v.has(what.name));
    if (owner === undefined) throw new Undefined(`undefined variable \`${what.name}\``);
    value = owner.get(what.name);
  }
  for (const field of what.fields) {
    if (value === undefined) throw new Undefined(`no field \`${field}\``);
    if (!(value instanceof RegoObject)) throw new Undefined(`no field \`${field}\`: the value is not an object`);
    value = value.get(field);
  }
  return value;
}

function call(name: string, args: readonly Item[]): Item {
  const [a, b] = args;
  const order = () => compare(a ?? null, b ?? null);
  switch (name) {
    case 'and':
      return args.find((v) => !isTrue(v)) ?? args.at(-1);
    case 'or':
      return args.find(isTrue) ?? args.at(-1);
    case 'not':
      return !isTrue(a);
    case 'eq':
      return args.slice(1).some((v) => compare(a ?? null, v ?? null) === 0);
    case 'ne':
      return order() !== 0;
    case 'lt':
      return order() < 0;
    case 'le':
      return order() <= 0;
    case 'gt':
      return order() > 0;
    case 'ge':
      return order() >= 0;
    case 'len':
      if (typeof a === 'string') return Buffer.byteLength(a);
      if (a instanceof RegoObject || a instanceof RegoSet) return a.size;
      if (Array.isArray(a)) return a.length;
      throw new Undefined('`len` of a value that has no length');
    case 'index':
      return args
        .slice(1)
        .reduce<Item>(
          (v, key) =>
            v instanceof RegoObject
              ? v.get(key ?? null)
              : Array.isArray(v) && typeof key === 'number'
                ? v[key]
                : fail(),
          a,
        );
    case 'print':
      return args.map(shown).join('');
    case 'println':
      return `${args.map(shown).join(' ')}\n`;
    case 'printf':
      return sprintf(
        typeof a === 'string' ? a : fail(),
        args.slice(1).map((v) => v ?? null),
      );
    case 'urlquery':
      return encodeURIComponent(args.map(shown).join(''));
    case 'html':
      return args
        .map(shown)
        .join('')
        .replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
    default:
      throw new Undefined(`function \`${name}\` is not supported`);
  }
}

function fail(): never {
  throw new Undefined('an argument has the wrong type');
}

function isTrue(value: Item): boolean {
  if (value === undefined || value === null || value === false || value === 0 || value === '') return false;
  if (value instanceof RegoObject || value instanceof RegoSet) return value.size > 0;
  return !Array.isArray(value) || value.length > 0;
}

// Prints maps and slices like Go.
function shown(value: Item): string {
  if (value === undefined || value === null) return '<no value>';
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return `[${value.map(shown).join(' ')}]`;
  if (value instanceof RegoSet) return `[${value.sorted().map(shown).join(' ')}]`;
  if (value instanceof RegoObject)
    return `map[${value
      .sorted()
      .map(([k, v]) => `${shown(k)}:${shown(v)}`)
      .join(' ')}]`;
  return value instanceof RegoNumber ? String(value.float) : print(value);
}

function quoted(source: string): string {
  try {
    return JSON.parse(source) as string;
  } catch {
    throw new Undefined(`\`${source}\` is not a string literal`);
  }
}
