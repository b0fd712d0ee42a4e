import { type MinorOf, SUPPORTED } from '../model/index.ts';

/** How to get a program that is not on the machine. */
export type Tool = {
  readonly version: string;
  /** The Go module in this repository that builds it, and the package in it. */
  readonly go: { readonly module: string; readonly package: string; readonly ldflags?: string };
  /** The publisher's archive by `platform-arch`, with the SHA-512 that the publisher lists. */
  readonly archive?: {
    readonly url: string;
    readonly member: string;
    readonly sha512: Readonly<Record<string, string>>;
  };
  /** Instructions for doing it by hand. */
  readonly byHand: string;
};

/** Programs of a control plane that differ between versions of Kubernetes. */
export type PlaneProgram = 'kube-apiserver' | 'kube-controller-manager' | 'kubectl';
/** Versions of Kubernetes, Helm and Kustomize beside the oldest, which has no version in its name. */
type LaterKubernetes = Exclude<MinorOf<'Kubernetes'>, '1.34'>;

export type ToolName =
  | 'etcd'
  | PlaneProgram
  | `${PlaneProgram}-${LaterKubernetes}`
  | 'opa'
  | 'opa-conformance'
  | 'opa-rate'
  | 'tessera-fsck'
  | 'ledger-sumdb'
  | 'versitygw'
  | 'kustomize'
  | 'kustomize-5.8'
  | 'helm'
  | 'helm-4.3';

// One archive with all three, as used by controller-runtime's envtest. Checksums: envtest-releases.yaml of
// sigs.k8s.io/controller-tools v0.23.0.
const ENVTEST = {
  url:
    'https://github.com/kubernetes-sigs/controller-tools/releases/' +
    'download/envtest-v1.34.1/envtest-v1.34.1-{platform}.tar.gz',
  sha512: {
    'linux-amd64':
      'c5e7c237ae18a8c65d0df1214b864ecd19aa9ff4f1383dbd477c202546d778c0' +
      'f74efe15750ec38f57d8de26ba17cd62f404446cdd3c975399a5d4589de35cdd',
    'linux-arm64':
      'bf13d2456183e66d084e28e1c9eed6a408fb77a06d8d1fd0461a7d9bc0c90b63' +
      'd29ea67870b28f80d1f992acb026007d6f43987753c859c81d6a78bc1ca2c903',
    'darwin-amd64':
      'd9e0464dc1708c36ab41147b5e364c8b8e201eafc14c299dcbe58ebeaa82c651' +
      'b8e834647167a951ded8c6d08c616aadbae1673a54743f9c8fa15a278c78c0c0',
    'darwin-arm64':
      '43d7c10b74100d20044df7c73be03e26f8243a9cb7c1d3035e581ee7bb0c7ffc' +
      'af759b9e182186b5bb2f47d1608835414ca443181a02d9ecb6c9cf04b43e3809',
  },
};
const envtest = (member: string) => ({ ...ENVTEST, member: `controller-tools/envtest/${member}` });
const CONTROL_PLANE_HINT =
  'set KUBEBUILDER_ASSETS to a directory with etcd, ' +
  'kube-apiserver and kubectl (for example from `setup-envtest use 1.34`)';
const ldflagsOf = (version: string) => `-s -w -X k8s.io/component-base/version.gitVersion=v${version}`;
const OLDEST = SUPPORTED.Kubernetes['1.34'];
const KUBERNETES = ldflagsOf(OLDEST);

// The same programs as in `tools/control-plane`, built with the libraries of a later version.
function later<P extends PlaneProgram, M extends LaterKubernetes>(program: P, minor: M): Tool {
  const version = SUPPORTED.Kubernetes[minor];
  return {
    version,
    go: {
      module: `tools/control-plane-${minor}`,
      package: `countersign.dev/tools/control-plane/${program}`,
      ldflags: ldflagsOf(version),
    },
    byHand: `put ${program} ${minor}.x on the PATH as \`${program}-${minor}\`; only the tests need it`,
  };
}

/** Every program that Countersign, its demo and its tests may need. */
export const TOOLS: Readonly<Record<ToolName, Tool>> = {
  etcd: {
    version: '3.6.16',
    go: { module: 'tools/control-plane', package: './etcd', ldflags: '-s -w' },
    archive: envtest('etcd'),
    byHand: CONTROL_PLANE_HINT,
  },
  'kube-apiserver': {
    version: OLDEST,
    go: { module: 'tools/control-plane', package: './kube-apiserver', ldflags: KUBERNETES },
    archive: envtest('kube-apiserver'),
    byHand: CONTROL_PLANE_HINT,
  },
  'kube-controller-manager': {
    version: OLDEST,
    go: { module: 'tools/control-plane', package: './kube-controller-manager', ldflags: KUBERNETES },
    byHand: 'put `kube-controller-manager` 1.34.x on the PATH; only the tests need it',
  },
  kubectl: {
    version: OLDEST,
    go: { module: 'tools/control-plane', package: './kubectl', ldflags: KUBERNETES },
    archive: envtest('kubectl'),
    byHand: CONTROL_PLANE_HINT,
  },
  'kube-apiserver-1.35': later('kube-apiserver', '1.35'),
  'kube-controller-manager-1.35': later('kube-controller-manager', '1.35'),
  'kubectl-1.35': later('kubectl', '1.35'),
  'kube-apiserver-1.36': later('kube-apiserver', '1.36'),
  'kube-controller-manager-1.36': later('kube-controller-manager', '1.36'),
  'kubectl-1.36': later('kubectl', '1.36'),
  // Policies in files of the API server (`countersign manifests --static`) need it.
  'kube-apiserver-1.37': later('kube-apiserver', '1.37'),
  'kube-controller-manager-1.37': later('kube-controller-manager', '1.37'),
  'kubectl-1.37': later('kubectl', '1.37'),
  opa: {
    version: '1.22.0',
    go: { module: 'tools/opa', package: 'github.com/open-policy-agent/opa', ldflags: '-s -w' },
    byHand: 'put `opa` 1.x on the PATH (https://www.openpolicyagent.org/docs#1-download-opa)',
  },
  'opa-conformance': {
    version: '1.22.0',
    go: { module: 'tools/opa', package: './conformance', ldflags: '-s -w' },
    byHand: 'only the tests need it',
  },
  'opa-rate': {
    version: '1.22.0',
    go: { module: 'tools/opa', package: './rate', ldflags: '-s -w' },
    byHand: 'only the benchmarks need it',
  },
  'tessera-fsck': {
    version: '1.0.4',
    go: { module: 'tools/ledger', package: 'github.com/transparency-dev/tessera/cmd/fsck', ldflags: '-s -w' },
    byHand: 'go install github.com/transparency-dev/tessera/cmd/fsck@v1.0.4; only the tests need it',
  },
  versitygw: {
    version: '1.8.0',
    go: { module: 'tools/object-store', package: 'github.com/versity/versitygw/cmd/versitygw', ldflags: '-s -w' },
    byHand: 'go install github.com/versity/versitygw/cmd/versitygw@v1.8.0; only the tests need it',
  },
  kustomize: {
    version: SUPPORTED.Kustomize['5.7'],
    go: { module: 'tools/kustomize', package: 'sigs.k8s.io/kustomize/kustomize/v5', ldflags: '-s -w' },
    byHand: 'put `kustomize` 5.x on the PATH (https://kubectl.docs.kubernetes.io/installation/kustomize)',
  },
  'kustomize-5.8': {
    version: SUPPORTED.Kustomize['5.8'],
    go: { module: 'tools/kustomize-5.8', package: 'sigs.k8s.io/kustomize/kustomize/v5', ldflags: '-s -w' },
    byHand: 'put kustomize 5.8.x on the PATH as `kustomize-5.8`; only the tests need it',
  },
  helm: {
    version: SUPPORTED.Helm['3.19'],
    go: { module: 'tools/helm', package: 'helm.sh/helm/v3/cmd/helm', ldflags: '-s -w' },
    byHand: 'put `helm` 3.19 to 4.3 on the PATH (https://helm.sh/docs/intro/install)',
  },
  'helm-4.3': {
    version: SUPPORTED.Helm['4.3'],
    go: { module: 'tools/helm-4', package: 'helm.sh/helm/v4/cmd/helm', ldflags: '-s -w' },
    byHand: 'put helm 4.3.x on the PATH as `helm-4.3`; only the tests need it',
  },
  'ledger-sumdb': {
    version: '0.42.0',
    go: { module: 'tools/ledger', package: './sumdb', ldflags: '-s -w' },
    byHand: 'only the tests need it',
  },
};
