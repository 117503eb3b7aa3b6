package main

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory sets the soft memory limit of this process to 85 % of its
// container's limit, unless GOMEMLIMIT sets one: what is garbage, such as the
// blocks of password hashes, is then collected before the kernel ends the
// process. The rest is for what Go does not count: libraries in C, stacks, pages
// of files.
func limitMemory() {
	if _, set := os.LookupEnv("GOMEMLIMIT"); set {
		return
	}
	if limit := containerMemory(os.DirFS("/")); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 100 * 85)
	}
}

// containerMemory is the memory limit of the control group of this process, or of
// the one above that has less, in bytes; math.MaxInt64 where there is none
// (cgroups(7)). root is the root folder.
func containerMemory(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path; version 2 names no controllers.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		folder, file := "sys/fs/cgroup", "memory.max"
		if strings.Contains(","+parts[1]+",", ",memory,") {
			folder, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if parts[1] != "" {
			continue
		}
		// In a container the path may be that of the host, and not be seen here; the
		// container's own group is then the folder itself.
		for p := path.Join("/", parts[2]); ; p = path.Dir(p) {
			text, err := fs.ReadFile(root, path.Join(folder, p, file))
			if n, e := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && e == nil && n > 0 {
				limit = min(limit, n)
			}
			if p == "/" {
				break
			}
		}
	}
	// Version 1 says "no limit" as the largest number of pages.
	if limit > math.MaxInt64>>1 {
		return math.MaxInt64
	}
	return limit
}
