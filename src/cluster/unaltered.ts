import { isDeepStrictEqual } from 'node:util';
import { isBuiltIn, type KubernetesObject, pointerPart, SERVER_FIELDS } from '../model/index.ts';
import { isSameScalar, withoutStringData } from './normal-forms.ts';
import { isDefault, type Shape, shapeIn, shapeOf, shapeOfItems } from './server-defaults.ts';

type Json = Readonly<Record<string, unknown>>;

/** One place in an object. */
type Place = {
  readonly path: string;
  readonly key: string;
  /** The key of the map or list that has it. */
  readonly parent: string;
  readonly shape: Shape;
  /** The shape of the map that has it. */
  readonly outer: Shape;
  /** Its value before; undefined if there was none, or if it is not known. */
  readonly live: unknown;
};

type Look = {
  readonly answered: KubernetesObject;
  readonly isBuiltIn: boolean;
  readonly left: readonly string[];
  readonly found: string[];
};

const MAX_PATHS = 20;

/**
 * Compares an object as it was sent to the API server with the answer. Returns JSON pointers to what differs beyond the
 * API server's own defaults and spellings: something in its admission changed it. `left` are pointers to fields that
 * are left to others. `live` is the object before; what it had beside ours is no change. Of custom kinds, only the
 * values that were sent are compared, because their definitions may add defaults.
 */
export function alterations(
  sent: KubernetesObject,
  answered: KubernetesObject,
  left: readonly string[] = [],
  live?: KubernetesObject,
): readonly string[] {
  const look: Look = { answered, isBuiltIn: isBuiltIn(sent), left, found: [] };
  const { status: _, ...given } = withoutStringData(sent);
  const { status: __, ...actual } = answered;
  const shape = shapeOf(sent);
  compareMaps({ path: '', key: '', parent: '', shape, outer: shape, live }, given, actual, look);
  return look.found.slice(0, MAX_PATHS);
}

function compare(place: Place, sent: unknown, answered: unknown, look: Look): void {
  if (isMap(sent) && isMap(answered)) compareMaps(place, sent, answered, look);
  else if (Array.isArray(sent) && Array.isArray(answered)) compareLists(place, sent, answered, look);
  else if (!isSameScalar(sent, answered, place, look.isBuiltIn)) look.found.push(place.path);
}

function compareMaps(place: Place, sent: Json, answered: Json, look: Look): void {
  for (const key of Object.keys(sent)) {
    // of a pod; a definition of a custom kind may describe fields of these names
    const isAlias = key === 'serviceAccount' && place.shape.adds?.[key] !== undefined;
    const value = isAlias ? sent['serviceAccountName'] || sent[key] : sent[key];
    const actual = answered[key];
    if (value === actual || isOfServer(place, key)) continue;
    const inside = placeIn(place, key);
    if (isLeft(inside, look)) continue;
    if (actual === undefined) {
      if (!isDropped(inside, value, look)) look.found.push(inside.path);
    } else if (look.isBuiltIn && isUnset(inside, value)) compareAddition(inside, answered, sent, look);
    else if (!isCounted(place, key, answered, sent, look)) compare(inside, value, actual, look);
  }
  if (!look.isBuiltIn) return;
  for (const key of Object.keys(answered))
    if (sent[key] === undefined && !isOfServer(place, key)) compareAddition(placeIn(place, key), answered, sent, look);
}

// A number that the API server or a controller counts up in an annotation, even if Git has it.
function isCounted({ shape }: Place, key: string, map: Json, given: Json, { isBuiltIn, answered }: Look): boolean {
  return isBuiltIn && shape.values === 'text' && shape.addsAny?.(map[key], { key, map, given, answered }) === true;
}

function compareAddition(place: Place, map: Json, given: Json, look: Look): void {
  const { key, shape, outer, live } = place;
  const value = map[key];
  if (value === null || (Array.isArray(value) && value.length === 0) || isLeft(place, look)) return;
  if (live !== undefined && isDeepStrictEqual(value, live)) return;
  const isOwn = isDefault(outer, value, { key, map, given, answered: look.answered });
  if (isOwn === true) return;
  // An added map may consist of defaults only.
  if (isMap(value) && Object.keys(value).length > 0) compareMaps({ ...place, shape }, {}, value, look);
  else look.found.push(place.path);
}

function compareLists(place: Place, sent: readonly unknown[], answered: readonly unknown[], look: Look): void {
  const kept =
    answered.length === sent.length
      ? [...answered.keys()]
      : [...answered.keys()].filter((i) => !isGained(place, answered[i], sent, look));
  if (kept.length === sent.length)
    kept.forEach((i, of) => {
      compareItem(place, i, sent[of], answered[i], look);
    });
  else if (look.isBuiltIn) compareByName(place, sent, answered, look);
  else compareWithin(place, sent, answered, look);
}

function compareItem(place: Place, index: number, sent: unknown, answered: unknown, look: Look): void {
  if (sent === answered) return;
  const inside = itemOf(place, index, sent);
  if (!isLeft(inside, look)) compare(inside, sent, answered, look);
}

// Items that the API server adds, or that were there before.
function isGained(place: Place, item: unknown, sent: readonly unknown[], look: Look): boolean {
  if (sent.some((s) => isDeepStrictEqual(s, item))) return false;
  if (place.shape.gains?.(item) === true) return true;
  const before = Array.isArray(place.live) && place.live.some((l) => isDeepStrictEqual(l, item));
  return look.isBuiltIn && before && !sent.some((s) => isSameItem(s, item));
}

function compareByName(place: Place, sent: readonly unknown[], answered: readonly unknown[], look: Look): void {
  const before = look.found.length;
  const missing = new Set(sent);
  answered.forEach((item, i) => {
    const same = sent.find((s) => missing.has(s) && isSameItem(s, item));
    if (same !== undefined) compareItem(place, i, same, item, look);
    else if (!isGained(place, item, sent, look) && !isLeft(itemOf(place, i, item), look))
      look.found.push(`${place.path}/${i}`);
    missing.delete(same);
  });
  // Something is missing, or stands there twice.
  if (missing.size > 0 || look.found.length === before) look.found.push(place.path);
}

// In lists of custom kinds, others may add items before, between and after.
function compareWithin(place: Place, sent: readonly unknown[], answered: readonly unknown[], look: Look): void {
  let next = 0;
  for (const [i, item] of sent.entries()) {
    const at = answered.findIndex((other, j) => {
      if (j < next) return false;
      const trial: Look = { ...look, found: [] };
      compareItem(place, i, item, other, trial);
      return trial.found.length === 0;
    });
    if (at < 0) look.found.push(`${place.path}/${i}`);
    else next = at + 1;
  }
}

// As the API server merges lists, but for a few. A port or a mount may have a name that someone else gave it.
const NAMES = ['mountPath', 'devicePath', 'containerPort', 'port', 'name', 'key', 'uid', 'ip', 'host', 'path', 'type'];

function isSameItem(a: unknown, b: unknown): boolean {
  if (!isMap(a) || !isMap(b)) return a === b;
  const name = NAMES.find((field) => a[field] !== undefined && b[field] !== undefined);
  if (name === undefined) return isDeepStrictEqual(a, b);
  return a[name] === b[name] && (a['protocol'] ?? 'TCP') === (b['protocol'] ?? 'TCP');
}

// --- what the API server drops

// Fields that have no pointer in Kubernetes' types: false and 0 are the same as nothing (k8s.io/api 0.34 and 0.37).
const ZEROS: ReadonlySet<string> = new Set([
  ...['chapAuthDiscovery', 'chapAuthSession', 'clusterScope', 'deprecated', 'exclusiveMaximum', 'exclusiveMinimum'],
  ...['globalDefault', 'hostIPC', 'hostNetwork', 'hostPID', 'insecureSkipTLSVerify', 'nullable', 'paused'],
  ...['preserveUnknownFields', 'publishNotReadyAddresses', 'readOnly', 'sslEnabled', 'stdin', 'stdinOnce', 'tty'],
  ...['uniqueItems', 'unschedulable', 'count', 'failureThreshold', 'healthCheckNodePort', 'hostPort'],
  ...['initialDelaySeconds', 'minReadySeconds', 'nodePort', 'partition', 'periodSeconds', 'priority'],
  ...['successThreshold', 'targetPort', 'timeoutSeconds'],
]);

function isDropped(place: Place, value: unknown, look: Look): boolean {
  if (value === null || value === undefined) return true;
  if (place.outer.values !== undefined) return false;
  if (Array.isArray(value)) return value.length === 0;
  if (isMap(value)) {
    // without `sessionAffinity: ClientIP`, the API server has no use for it
    if (place.key === 'sessionAffinityConfig') return true;
    return Object.keys(value).every((key) => isDropped(placeIn(place, key), value[key], look));
  }
  return value === '' || ((value === false || value === 0) && (!look.isBuiltIn || ZEROS.has(place.key)));
}

// Values of Git in whose place the API server sets its default.
function isUnset({ key, outer }: Place, value: unknown): boolean {
  if (value === null || value === undefined) return true;
  if (outer.values !== undefined) return false;
  if (Array.isArray(value)) return value.length === 0;
  if (value === '') return key !== 'storageClassName';
  return value === 0 && ZEROS.has(key);
}

// --- places

function placeIn({ path, key: parent, shape, live }: Place, key: string): Place {
  return {
    path: `${path}/${pointerPart(key)}`,
    key,
    parent,
    shape: shapeIn(shape, key),
    outer: shape,
    live: isMap(live) ? live[key] : undefined,
  };
}

// The fields of an item have the list as their parent.
function itemOf(place: Place, index: number, item: unknown): Place {
  const live = Array.isArray(place.live) ? place.live.find((l) => isSameItem(l, item)) : undefined;
  return { ...place, path: `${place.path}/${index}`, shape: shapeOfItems(place.shape), live };
}

function isOfServer({ path }: Place, key: string): boolean {
  return path === '/metadata' && SERVER_FIELDS.has(key);
}

function isLeft({ path }: Place, { left }: Look): boolean {
  return left.some((pointer) => path === pointer || path.startsWith(`${pointer}/`));
}

function isMap(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
