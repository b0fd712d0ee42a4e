import { Environment, type ParseResult } from '@marcbachmann/cel-js';
import { CountersignError, type HealthExpression, type KubernetesObject, messageOf } from '../model/index.ts';
import type { Health, HealthRule } from './health.ts';

/**
 * Compiles the CEL expressions of an environment into one rule. Each sees the whole object as `object`. An expression
 * that fails on an object (a field may not exist yet) means "not yet". Throws `config-invalid` if one cannot be parsed.
 */
export function healthExpressions(expressions: readonly HealthExpression[]): HealthRule | undefined {
  if (expressions.length === 0) return undefined;
  const cel = new Environment({ limits: { maxAstNodes: 2000, maxDepth: 50 } }).registerVariable('object', 'dyn');
  const rules = expressions.map((e) => ({
    ...e,
    current: compiled(cel, e.current),
    failed: e.failed === undefined ? undefined : compiled(cel, e.failed),
  }));
  return (object) => {
    const rule = rules.find((r) => r.kind === object.kind && r.apiVersion === object.apiVersion);
    if (rule === undefined) return undefined;
    const context = { object: withIntegers(object) };
    if (rule.failed !== undefined && holds(rule.failed, context) === true)
      return { state: 'failed', message: 'its `failed` expression holds' };
    const current = holds(rule.current, context);
    if (current === true) return { state: 'current', message: '' };
    return {
      state: 'progressing',
      message: typeof current === 'string' ? current : 'its `current` expression does not hold',
    } satisfies Health;
  };
}

function compiled(cel: Environment, text: string): ParseResult {
  try {
    const expression = cel.parse(text);
    const { valid, error } = expression.check();
    if (!valid) throw error ?? new Error('its types do not match');
    return expression;
  } catch (cause) {
    throw new CountersignError(
      'config-invalid',
      `the health expression \`${text}\` cannot be read: ${messageOf(cause)}`,
      { cause },
    );
  }
}

// Returns true, false, or why the expression failed.
function holds(expression: ParseResult, context: { readonly object: unknown }): boolean | string {
  try {
    const value: unknown = expression(context);
    return value === true;
  } catch (thrown) {
    return messageOf(thrown);
  }
}

// JSON has one type of number; whole numbers are `int` in CEL.
function withIntegers(value: unknown): unknown {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(withIntegers);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value as KubernetesObject).map(([k, v]) => [k, withIntegers(v)]));
}
