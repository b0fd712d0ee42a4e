// Command sumdb reads an exported ledger with Go's own libraries for transparency logs: the checkpoint as a signed note,
// the root out of its tiles, and each receipt.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// tiles serves tiles from files. Go's paths begin with the height and encode numbers as tlog-tiles does.
type tiles struct{ directory string }

func (tiles) Height() int                        { return tileHeight }
func (tiles) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(wanted))
	for i, tile := range wanted {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		bytes, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		data[i] = bytes
	}
	return data, nil
}

func main() {
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Println("wrong:", err)
		os.Exit(1)
	}
}

func check(directory, keyFile string) error {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.SplitN(strings.TrimSpace(string(key)), "\n", 2)[0])
	if err != nil {
		return err
	}
	tree, err := open(filepath.Join(directory, "checkpoint"), verifier)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, tiles{directory})
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("the tiles give another root: %v", err)
	}
	receipts, err := filepath.Glob(filepath.Join(directory, "receipts", "*.tlog-proof"))
	if err != nil {
		return err
	}
	for _, path := range receipts {
		if err := checkReceipt(path, verifier); err != nil {
			return fmt.Errorf("receipt %s: %w", strings.TrimSuffix(filepath.Base(path), ".tlog-proof"), err)
		}
	}
	fmt.Printf("ok: %d entries, %d receipts\n", tree.N, len(receipts))
	return nil
}

func open(path string, verifier note.Verifier) (tlog.Tree, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	return parse(bytes, verifier)
}

func parse(bytes []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(bytes, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("this is no checkpoint of %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

func checkReceipt(path string, verifier note.Verifier) error {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(strings.TrimSuffix(path, ".tlog-proof") + ".json")
	if err != nil {
		return err
	}
	head, checkpoint, found := strings.Cut(string(bytes), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("this is no tlog-proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[2:] {
		var hash tlog.Hash
		decoded, err := base64.StdEncoding.DecodeString(line)
		if err != nil || copy(hash[:], decoded) != len(hash) {
			return fmt.Errorf("a hash is not 32 bytes in base64")
		}
		proof = append(proof, hash)
	}
	tree, err := parse([]byte(checkpoint), verifier)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}
