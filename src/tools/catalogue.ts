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

export type ToolName =
  | 'etcd'
  | 'kube-apiserver'
  | 'kube-apiserver-1.37'
  | 'kube-controller-manager'
  | 'kubectl'
  | 'opa'
  | 'opa-conformance'
  | 'opa-rate'
  | 'tessera-fsck'
  | 'ledger-sumdb'
  | 'versitygw'
  | 'kustomize'
  | 'helm';

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
const KUBERNETES = '-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4';
const KUBERNETES_1_37 = '-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2';

/** Every program that Countersign, its demo and its tests may need. */
export const TOOLS: Readonly<Record<ToolName, Tool>> = {
  etcd: {
    version: '3.6.16',
    go: { module: 'tools/control-plane', package: './etcd', ldflags: '-s -w' },
    archive: envtest('etcd'),
    byHand: CONTROL_PLANE_HINT,
  },
  'kube-apiserver': {
    version: '1.34.4',
    go: { module: 'tools/control-plane', package: './kube-apiserver', ldflags: KUBERNETES },
    archive: envtest('kube-apiserver'),
    byHand: CONTROL_PLANE_HINT,
  },
  // Policies in files of the API server (`countersign manifests --static`) need it.
  'kube-apiserver-1.37': {
    version: '1.37.2',
    go: { module: 'tools/control-plane-1.37', package: './kube-apiserver', ldflags: KUBERNETES_1_37 },
    byHand: 'put kube-apiserver 1.37.x on the PATH as `kube-apiserver-1.37`; only the tests need it',
  },
  'kube-controller-manager': {
    version: '1.34.4',
    go: { module: 'tools/control-plane', package: './kube-controller-manager', ldflags: KUBERNETES },
    byHand: 'put `kube-controller-manager` 1.34.x on the PATH; only the tests need it',
  },
  kubectl: {
    version: '1.34.4',
    go: { module: 'tools/control-plane', package: './kubectl', ldflags: KUBERNETES },
    archive: envtest('kubectl'),
    byHand: CONTROL_PLANE_HINT,
  },
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
    version: '5.7.1',
    go: { module: 'tools/kustomize', package: 'sigs.k8s.io/kustomize/kustomize/v5', ldflags: '-s -w' },
    byHand: 'put `kustomize` 5.x on the PATH (https://kubectl.docs.kubernetes.io/installation/kustomize)',
  },
  helm: {
    version: '3.19.0',
    go: { module: 'tools/helm', package: 'helm.sh/helm/v3/cmd/helm', ldflags: '-s -w' },
    byHand: 'put `helm` 3.x on the PATH (https://helm.sh/docs/intro/install)',
  },
  'ledger-sumdb': {
    version: '0.42.0',
    go: { module: 'tools/ledger', package: './sumdb', ldflags: '-s -w' },
    byHand: 'only the tests need it',
  },
};
