import { CountersignError, type KubernetesObject } from '../model/index.ts';
import type { Answer } from './api-server.ts';

/**
 * Reads the object in an answer. Throws `cluster-unreachable` (retry) if it is not one: a proxy may have answered in
 * place of the API server.
 */
export function objectIn({ status, body }: Pick<Answer, 'status' | 'body'>): KubernetesObject {
  const { apiVersion, kind, metadata } = body;
  if (typeof apiVersion === 'string' && typeof kind === 'string' && isRecord(metadata) && hasTextMaps(metadata))
    return body as KubernetesObject;
  throw new CountersignError('cluster-unreachable', `the API server answered ${status} without an object`, {
    recover: 'retry',
    hint: 'is something between this service and the API server answering in its place?',
  });
}

/** Reads the value at a path of an answer if it is a text. */
export function textAt(body: unknown, ...path: readonly string[]): string | undefined {
  const value = path.reduce<unknown>((at, key) => (isRecord(at) ? at[key] : undefined), body);
  return typeof value === 'string' ? value : undefined;
}

/** Reads the value at a path of an answer if it is a list, else an empty one. */
export function listAt(body: unknown, ...path: readonly string[]): readonly unknown[] {
  const value = path.reduce<unknown>((at, key) => (isRecord(at) ? at[key] : undefined), body);
  return Array.isArray(value) ? value : [];
}

/** Tests whether a value is a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function hasTextMaps({ labels, annotations }: Record<string, unknown>): boolean {
  return [labels, annotations].every(
    (map) => map === undefined || (isRecord(map) && Object.values(map).every((text) => typeof text === 'string')),
  );
}
