package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/templates"
)

func (c *command) configure() *cobra.Command {
	return group("config", "Check and show the configuration",
		&cobra.Command{Use: "check", Short: "Say everything that is wrong with the configuration, and with the files it names", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				config, err := c.load("")
				if err != nil {
					return err
				}
				if _, err := storage.ReadKeyring(config.Storage.Keyring); err != nil {
					return fmt.Errorf("storage.keyring: %w", err)
				}
				if _, err := templates.New(config.Templates.Dir); err != nil {
					return err
				}
				return c.print(cmd, map[string]bool{"valid": true}, func() {
					fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
				})
			}},
		&cobra.Command{Use: "print", Short: "Show the values in force, secrets as [set]", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				config, err := c.configured()
				if err != nil {
					return err
				}
				b, err := yaml.Marshal(config)
				if err != nil {
					return err
				}
				var values map[string]any
				if err := yaml.Unmarshal(b, &values); err != nil {
					return err
				}
				return c.print(cmd, values, func() { cmd.OutOrStdout().Write(b) })
			}},
	)
}

// configured is load without the rules: what is wrong can still be looked at.
func (c *command) configured() (Config, error) {
	if c.data != "" {
		return installed(c.data)
	}
	config, err := loadConfig(c.config, c.environ)
	if err != nil {
		return config, fmt.Errorf("configuration:\n%w", err)
	}
	return config, nil
}
