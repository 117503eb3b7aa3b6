package main

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestTheMemoryLimitOfTheContainer(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for name, c := range map[string]struct {
		root  fstest.MapFS
		limit int64
	}{
		"version 2, own namespace": {fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("536870912\n"),
		}, 512 << 20},
		"version 2, the group above has less": {fstest.MapFS{
			"proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n"), "sys/fs/cgroup/a/memory.max": file("1000\n"),
		}, 1000},
		"version 2, no limit": {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("max\n")}, math.MaxInt64},
		"version 1": {fstest.MapFS{
			"proc/self/cgroup": file("9:cpuset,memory:/pod/x\n1:cpu:/\n0::/\n"),
			"sys/fs/cgroup/memory/pod/x/memory.limit_in_bytes": file("268435456\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":       file("9223372036854771712\n"),
		}, 256 << 20},
		"version 1, the path is the host's": {fstest.MapFS{
			"proc/self/cgroup": file("4:memory:/kubepods/pod1/x\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("1048576\n"),
		}, 1 << 20},
		"version 1, no limit": {fstest.MapFS{
			"proc/self/cgroup": file("4:memory:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, math.MaxInt64},
		"junk": {fstest.MapFS{"proc/self/cgroup": file("\n:\n0::../..\n"), "sys/fs/cgroup/memory.max": file("-1")}, math.MaxInt64},
		"none": {fstest.MapFS{}, math.MaxInt64},
	} {
		require.Equal(t, c.limit, containerMemory(c.root), name)
	}
}

// A process with what the chart sets stays within its pod's memory while 64
// strangers sign in at once, in a control group of that size where one can be made.
func TestSignInsFitThePod(t *testing.T) {
	b, err := os.ReadFile("../../charts/patauth/values.yaml")
	require.NoError(t, err)
	var values struct {
		Config struct {
			Login struct{ Hash struct{ Concurrent int } }
		}
		App struct {
			Resources struct{ Limits struct{ Memory string } }
		}
	}
	require.NoError(t, yaml.Unmarshal(b, &values))
	mib, ok := strings.CutSuffix(values.App.Resources.Limits.Memory, "Mi")
	require.True(t, ok)
	limit, err := strconv.Atoi(mib)
	require.NoError(t, err)
	limit <<= 20

	t.Setenv("PATAUTH_LOGIN_HASH_CONCURRENT", strconv.Itoa(values.Config.Login.Hash.Concurrent))
	t.Setenv("PATAUTH_DRAIN", "1ms")
	join := podOf(t, limit)
	if join == "" {
		t.Log("no control group can be made here: GOMEMLIMIT stands for what its limit would set")
		t.Setenv("GOMEMLIMIT", strconv.Itoa(limit/100*85))
	}
	folder := t.TempDir()
	inPod, pid := filepath.Join(folder, "patauth-in-pod"), filepath.Join(folder, "pid")
	script := fmt.Sprintf("#!/bin/sh\necho $$ > %s\n%s\nexec %s \"$@\"\n", pid, join, binary(t))
	require.NoError(t, os.WriteFile(inPod, []byte(script), 0o700))
	d := dev{data: t.TempDir()}
	d.run(t, inPod)

	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for i := range 64 {
		all.Go(func() {
			for range 2 {
				r, err := http.PostForm(d.Issuer+"/login", url.Values{"email": {fmt.Sprintf("nobody-%d@example.org", i)}, "current-password": {"not a password of anybody"}})
				if err != nil {
					t.Error(err) // the kernel has ended it
					return
				}
				r.Body.Close()
				mu.Lock()
				statuses[r.StatusCode]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Equal(t, 128, statuses[401]+statuses[503], statuses)
	require.NotZero(t, statuses[401])
	text, err := os.ReadFile(pid)
	require.NoError(t, err)
	text, err = os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/status")
	require.NoError(t, err)
	peak, err := strconv.Atoi(regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(string(text))[1])
	require.NoError(t, err)
	t.Logf("statuses %v, VmHWM %d MiB of %d MiB", statuses, peak>>10, limit>>20)
	require.Less(t, peak<<10, limit)
}

// podOf makes a control group whose memory is limited and returns the shell
// command that puts the shell into it; "" where none can be made.
func podOf(t *testing.T, limit int) (join string) {
	t.Helper()
	for folder, file := range map[string]string{"/sys/fs/cgroup": "memory.max", "/sys/fs/cgroup/memory": "memory.limit_in_bytes"} {
		group, err := os.MkdirTemp(folder, "patauth-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { exec.Command("rmdir", group).Run() })
		if f, err := os.OpenFile(filepath.Join(group, file), os.O_WRONLY, 0); err == nil {
			_, err = fmt.Fprint(f, limit)
			f.Close()
			if err == nil {
				return "echo $$ > " + filepath.Join(group, "cgroup.procs")
			}
		}
	}
	return ""
}
