package web_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

func TestParametersComeOnce(t *testing.T) {
	r := httptest.NewRequest("GET", "/?client_id=a&client_id=b", nil)
	_, err := web.Query(r)
	require.ErrorIs(t, err, web.ErrInvalid)
	param, _ := web.InvalidParameter(err)
	require.Equal(t, "client_id", param)

	r = httptest.NewRequest("GET", "/?resource=a&resource=b&scope=x", nil)
	v, err := web.Query(r, "resource")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, v["resource"])

	r = httptest.NewRequest("POST", "/", strings.NewReader("<script>=1&<script>=2"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err = web.Form(r)
	param, _ = web.InvalidParameter(err)
	require.Equal(t, "?script?", param, "a name is repeated in harmless letters")
}

// RFC 6749, Sections 3.1 and 3.2.
func TestAParameterWithoutAValueWasNotSent(t *testing.T) {
	const raw = "a=&b=1&c&r=&r=2&r=&s=&s="
	want := url.Values{"b": {"1"}, "r": {"2"}}
	q, err := web.Query(httptest.NewRequest("GET", "/?"+raw, nil), "r", "s")
	require.NoError(t, err)
	require.Equal(t, want, q)
	r := httptest.NewRequest("POST", "/", strings.NewReader(raw))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	form, err := web.Form(r, "r", "s")
	require.NoError(t, err)
	require.Equal(t, want, form)
	_, err = web.Query(httptest.NewRequest("GET", "/?a=&a=1", nil))
	require.ErrorIs(t, err, web.ErrInvalid, "twice all the same")
}

func TestFlow(t *testing.T) {
	id := "azE." + storage.NewID()
	for _, c := range []struct {
		query, again, done string
		bad                string
	}{
		{"", "", "/account", ""},
		{"request=" + id, "?request=" + id, "/oauth2/auth/" + id, ""},
		{"to=account", "?to=account", "/account", ""},
		{"to=labs", "?to=labs", "/account/labs", ""},
		{"to=factors", "?to=factors", "/account/factors", ""},
		{"to=https://evil.example", "", "", "to"},
		{"to=//evil.example", "", "", "to"},
		{"request=../../evil", "", "", "request"},
		{"request=" + id + "%2F", "", "", "request"},
		{"request=..", "", "", "request"},
		{"request=" + storage.NewID(), "", "", "request"},
		{"request=" + id + "&to=labs", "", "", "to"},
	} {
		v, err := url.ParseQuery(c.query)
		require.NoError(t, err)
		f, err := web.FlowOf(v)
		if c.bad != "" {
			require.ErrorIs(t, err, web.ErrInvalid, c.query)
			param, _ := web.InvalidParameter(err)
			require.Equal(t, c.bad, param)
			continue
		}
		require.NoError(t, err, c.query)
		require.Equal(t, c.again, f.Query())
		require.Equal(t, c.done, f.Done())
	}
	for path, to := range map[string]string{
		"/account": "account", "/account/labs": "labs", "/account/labs/unlink": "labs", "/account/labsx": "account",
		"/account/factors": "factors", "/account/profile": "account", "/elsewhere": "account",
	} {
		require.Equal(t, web.Flow{To: to}, web.FlowTo(path), path)
	}
}

func FuzzForm(f *testing.F) {
	f.Add("a=b&c=d", "application/x-www-form-urlencoded")
	f.Add("a=%00;&a=", "application/x-www-form-urlencoded; charset=utf-8")
	f.Add("--x", "multipart/form-data; boundary=x")
	f.Fuzz(func(t *testing.T, body, kind string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		v, err := web.Form(r)
		if err != nil {
			row, known := web.RowOf(err)
			require.True(t, known, "every refusal has its row: %v", err)
			require.Less(t, row.Status, 500)
			return
		}
		for name, values := range v {
			require.Len(t, values, 1)
			require.True(t, utf8.ValidString(name+values[0]))
			require.NotContains(t, name+values[0], "\x00")
			require.NotEmpty(t, values[0], "what has no value was not sent")
		}
	})
}

func FuzzFlowOf(f *testing.F) {
	f.Add("request=" + storage.NewID())
	f.Add("to=labs")
	f.Add("to=//evil.example&request=x")
	f.Fuzz(func(t *testing.T, query string) {
		v, _ := url.ParseQuery(query)
		flow, err := web.FlowOf(v)
		if err != nil {
			require.ErrorIs(t, err, web.ErrInvalid)
			return
		}
		w := httptest.NewRecorder()
		require.NoError(t, web.Redirect(w, httptest.NewRequest("GET", "/", nil), flow.Done()))
		u, err := url.Parse(w.Header().Get("Location"))
		require.NoError(t, err)
		require.Empty(t, u.Host)
		again, err := url.ParseQuery(strings.TrimPrefix(flow.Query(), "?"))
		require.NoError(t, err)
		back, err := web.FlowOf(again)
		require.NoError(t, err)
		require.Equal(t, flow, back)
	})
}

func FuzzDescribe(f *testing.F) {
	f.Add(`a"b\c` + "\n\u00e9")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range web.Describe(text) {
			require.True(t, c == 0x20 || c == 0x21 || (0x23 <= c && c <= 0x5b) || (0x5d <= c && c <= 0x7e))
		}
	})
}
