package storage_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

func TestNamesAndBirthDates(t *testing.T) {
	for name, good := range map[string]bool{
		"Ada": true, "  Ada\tMaria ": true, "O’Neill-Çelik": true, strings.Repeat("ü", 100): true,
		"": false, " ": false, strings.Repeat("a", 101): false, "<b>": false, "a\u202eb": false, "a\x07b": false,
	} {
		require.Equal(t, good, storage.GoodName(storage.NormalName(name)), "%q", name)
	}
	now := storage.Now()
	for day, good := range map[string]bool{
		"1975-12-10": true, "2000-02-29": true,
		"2001-02-29": false, "1879-12-31": false, "9999-01-01": false, "10.12.1975": false, "": false,
	} {
		require.Equal(t, good, storage.GoodBirthDate(day, now), day)
	}
}

func FuzzNormalName(f *testing.F) {
	f.Add("Ada  Byron")
	f.Fuzz(func(t *testing.T, raw string) {
		name := storage.NormalName(raw)
		require.Equal(t, name, storage.NormalName(name))
	})
}
